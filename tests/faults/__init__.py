"""The fault matrix: what can go wrong with a provider, who pays, and what the client is told.

Every fault × every endpoint × plain and streamed × a client that stays or leaves at some moment,
each cell with the exact rows of the ledger and the exact bytes that the client must see.

Read in this order:

    cell.py         what a cell is: a fault, a client, and what is expected of both sides
    dialects.py     a request to each endpoint, its complete answer, and their prices
    gemini.py       the same for Gemini's own streams
    connections.py  faults of the connection, before and below HTTP
    handshakes.py   faults of TLS
    statuses.py     answers that are errors
    bodies.py       complete or broken plain answers
    streams.py      event streams that are broken, strange, or end too early
    candidates.py   streams whose candidates alone tell the end
    arrays.py       streams that are one JSON array
    pings.py        signs of life, and nothing else for long
    usages.py       usage records that lie
    bulk.py         answers of 100 MB
    matrix.py       all cells
    site.py         the real program and its providers, for cells to visit
    compare.py      what a client saw against what it must see
    run.py          runs cells

`python -m tests.faults` runs all of it and prints how many cells there are.
"""
