"""The request path in a simulated world: `python -m tests.simulator --seeds 2000`.

The relay, the ledger and the writer are the real ones, on a real SQLite file. Time, clients,
providers, the disk's moods and the operator are simulated, and everything that they do is drawn
from one number, the seed: a world that once went wrong goes wrong again.

    plan.py         what a seed draws: users, requests, answers, faults, what the operator does
    loop.py         an event loop whose time passes only when nothing is left to do
    disk.py         the disk thread without a thread, slow or failing when the plan says so
    answers.py      what a provider sends, with notes of what it means for the bill
    provider.py     the way to the providers
    client.py       the clients' side of ASGI
    office.py       the operator, and the books as kept from the outside
    life.py         one life of the serving process, from its start to its stop or crash
    stand_ins.py    the clock, request ids and the like, the same each time
    oracle.py       how a request may end, read a second time from docs/what-gets-charged.md
    checks.py       what must be true after each commit and at the end
    world.py        one seed: its lives one after the other on one database
"""
