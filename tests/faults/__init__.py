"""The fault matrix: what can go wrong with a provider, who pays, and what the client is told.

Every fault × every endpoint × plain and streamed × a client that stays or leaves at some moment,
each cell with the exact rows of the ledger and the exact bytes that the client must see.

Read in this order:

    cell.py         what a cell is: a fault, a client, and what is expected of both sides
    dialects.py     a request to each endpoint, its complete answer, and their prices
    connections.py  faults of the connection, before and below HTTP
    statuses.py     answers that are errors
    bodies.py       complete or broken plain answers
    streams.py      event streams that are broken, strange, or end too early
    usages.py       usage records that lie
    matrix.py       all cells
    run.py          runs cells against the real program and compares

`python -m tests.faults` runs all of it and prints how many cells there are.
"""
