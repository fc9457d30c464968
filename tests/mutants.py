"""Mutates the SQL of the money path, which mutmut leaves alone: `python -m tests.mutants`.

Each mutation is one change of a statement, or of a condition beside one, in a copy of the sources.
The quick tests must fail with it. Outside CI: it takes some seconds for each; docs/reliability.md.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
TESTS = ("tests/ledger", "tests/test_recovery.py")
RUN_S_MAX = 120

LEDGER = (
    # start_boot, pin_prices
    ("ON CONFLICT DO NOTHING", ""),
    ("provider = ? AND model = ? AND sha256 = ?", "provider = ? AND ? <> '' AND sha256 = ?"),
    ("provider = ? AND model = ? AND sha256 = ?", "? <> '' AND model = ? AND sha256 = ?"),
    ("provider = ? AND model = ? AND sha256 = ?", "provider = ? AND model = ? AND ? <> ''"),
    # find_earlier_hold
    ("wallet_id = ? AND idempotency_hash = ?", "? > 0 AND idempotency_hash = ?"),
    ("wallet_id = ? AND idempotency_hash = ?", "wallet_id = ? AND idempotency_hash <> ?"),
    ("state <> 'released'", "state = 'open'"),
    # _set_aside
    ("balance_nanousd - held_nanousd >= ?1", "balance_nanousd - held_nanousd > ?1"),
    ("balance_nanousd - held_nanousd >= ?1", "balance_nanousd >= ?1"),
    ("?2 AND balance_nanousd - held_nanousd >= ?1", "?2"),
    ("id = ?2 AND balance_nanousd - held_nanousd >= ?1", "?2 > 0"),
    ("held_nanousd = held_nanousd + ?1", "held_nanousd = ?1"),
    # extend_hold
    ("amount_nanousd + ? WHERE id = ? AND state = 'open'", "amount_nanousd + ? WHERE id = ?"),
    ("amount_nanousd + ? WHERE id = ? AND", "amount_nanousd + ? WHERE ? <> '' AND"),
    ("SET amount_nanousd = amount_nanousd + ?", "SET amount_nanousd = ?"),
    # note_seen
    (" AND seen_cost_nanousd < :seen", ""),
    ("id = :id AND state = 'open' AND seen", "id = :id AND seen"),
    ("WHERE id = :id AND state = 'open' AND seen", "WHERE :id <> '' AND state = 'open' AND seen"),
    ("SET seen_cost_nanousd = :seen", "SET seen_cost_nanousd = seen_cost_nanousd + :seen"),
    # end_hold
    (" AND state = 'open'\", (hold.id,)\n", '", (hold.id,)\n'),
    ("min(charged, held + standing", "max(charged, held + standing"),
    ("held + standing(tx, hold.wallet_id).available_nanousd", "held"),
    ("held + standing(tx", "standing(tx"),
    ("cost_nanousd = ?, charged_nanousd = ?", "charged_nanousd = ?, cost_nanousd = ?"),
    ("shortfall_nanousd = ?, ended_at_ms = ?", "ended_at_ms = ?, shortfall_nanousd = ?"),
    (
        '           WHERE id = ?""",\n        (end.state',
        '           WHERE ? <> \'\'""",\n        (end.state',
    ),
    ("balance_nanousd = balance_nanousd - ?", "balance_nanousd = balance_nanousd + ?"),
    (
        "held_nanousd = held_nanousd - ? WHERE id = ?",
        "held_nanousd = held_nanousd + ? WHERE id = ?",
    ),
    ("held_nanousd = held_nanousd - ? WHERE id = ?", "held_nanousd = held_nanousd - ? WHERE ? > 0"),
    ("(charged, held, hold.wallet_id)", "(charged, charged, hold.wallet_id)"),
    ("(charged, held, hold.wallet_id)", "(held, held, hold.wallet_id)"),
    ("(charged, held, hold.wallet_id)", "(end.cost_nanousd, held, hold.wallet_id)"),
    ("(charged, held, hold.wallet_id)", "(charged, hold.amount_nanousd, hold.wallet_id)"),
    ("    if charged:\n", "    if True:\n"),
    ("-charged, hold.id, end.at_ms", "-end.cost_nanousd, hold.id, end.at_ms"),
    ("-charged, hold.id, end.at_ms", "-charged, hold.id, hold.created_at_ms"),
    ("VALUES(?, 'charge', ?, ?, 'proxy', ?)", "VALUES(?, 'charge', ?, ?, 'recovery', ?)"),
    ("hold.endpoint, hold.created_at_ms),", "hold.endpoint, end.at_ms),"),
    ("*(held, end.state", "*(hold.amount_nanousd, end.state"),
    ("charged, owed),\n            *msgspec", "end.cost_nanousd, owed),\n            *msgspec"),
    ("  cost_nanousd, charged_nanousd, shortfall", "  charged_nanousd, cost_nanousd, shortfall"),
    # end_if_open, standing
    ("SELECT 1 FROM holds WHERE id = ? AND state = 'open'", "SELECT 1 FROM holds WHERE id = ?"),
    ('"SELECT balance_nanousd, held_nanousd FROM', '"SELECT held_nanousd, balance_nanousd FROM'),
)
CREDITING = (
    ("(known[1], known[2]) != (wallet_id, amount_nanousd)", "known[1] != wallet_id"),
    ("(known[1], known[2]) != (wallet_id, amount_nanousd)", "known[2] != amount_nanousd"),
    ("SELECT balance_nanousd - held_nanousd FROM", "SELECT balance_nanousd FROM"),
    ("available + by_nanousd < 0", "available + by_nanousd <= 0"),
    ("amount_nanousd > AMOUNT_NANOUSD_MAX", "amount_nanousd >= AMOUNT_NANOUSD_MAX"),
    ("balance_nanousd = balance_nanousd + ? WHERE id = ?", "balance_nanousd = ? WHERE id = ?"),
    ("= balance_nanousd + ? WHERE id = ?", "= balance_nanousd + ? WHERE ? > 0"),
    ("idempotency_key, actor, reason, now_ms),\n", "None, actor, reason, now_ms),\n"),
)

RECOVERY = (
    # write_kept
    ('known or kept.end.state == "released"', "known"),
    ('known or kept.end.state == "released"', 'kept.end.state == "released"'),
    ("SELECT 1 FROM holds WHERE id = ?", "SELECT 1 FROM holds WHERE ? <> ''"),
    # the wallets of what a start ends
    ("             balance_nanousd = balance_nanousd - ended.charged,\n", ""),
    ("balance_nanousd - ended.charged,", "balance_nanousd - ended.held,"),
    ("held_nanousd - ended.held\n", "held_nanousd - ended.charged\n"),
    ("sum(min(seen_cost_nanousd, amount_nanousd)) AS", "sum(seen_cost_nanousd) AS"),
    ("sum(min(seen_cost_nanousd, amount_nanousd)) AS", "max(min(seen_cost_nanousd, 1)) AS"),
    ("sum(min(seen_cost_nanousd, amount_nanousd)) AS", "sum(amount_nanousd) AS"),
    ("FROM holds WHERE state = 'open' GROUP BY", "FROM holds GROUP BY"),
    (" GROUP BY wallet_id) AS ended", ") AS ended"),
    ("WHERE wallets.id = ended.wallet_id", "WHERE 1"),
    # its transfers
    ("'charge', -min(seen", "'charge', -max(seen"),
    ("'charge', -min(seen_cost_nanousd, amount_nanousd)", "'charge', -seen_cost_nanousd"),
    ("id, 'recovery', :now", "id, 'proxy', :now"),
    ("id, 'recovery', :now", "id, 'recovery', created_at_ms"),
    ("state = 'open' AND min(seen_cost_nanousd, amount_nanousd) > 0", "state = 'open'"),
    ("state = 'open' AND min(seen_cost_nanousd, amount_nanousd) > 0", "seen_cost_nanousd > 0"),
    # its requests
    ("holds.created_at_ms, amount_nanousd, 'expired'", ":now, amount_nanousd, 'expired'"),
    ("amount_nanousd, 'expired'", "seen_cost_nanousd, 'expired'"),
    ("iif(seen_cost_nanousd > 0, 'estimate', 'none'), seen", "'estimate', seen"),
    ("iif(seen_cost_nanousd > 0, 'estimate', 'none'), seen", "'none', seen"),
    (
        "max(seen_cost_nanousd - amount_nanousd, 0),\n             user_id",
        "0,\n             user_id",
    ),
    ("model, coalesce(is_stream, 0), 0", "model, 0, 0"),
    ("model, coalesce(is_stream, 0), 0", "model, is_stream, 0"),
    ("model, coalesce(is_stream, 0), 0", "model, 1, 0"),
    ("max(:now - holds.created_at_ms, 0)", ":now - holds.created_at_ms"),
    (
        '           WHERE state = \'open\'""",\n        at,\n    )\n    rollups',
        '""",\n        at,\n    )\n    rollups',
    ),
    ("    rollups.add_open_holds(tx)\n", ""),
    # the holds themselves
    ("ended_at_ms = :now", "ended_at_ms = created_at_ms"),
    ("basis = iif(seen_cost_nanousd > 0, 'estimate', 'none')", "basis = 'none'"),
    ("cost_nanousd = seen_cost_nanousd,", "cost_nanousd = min(seen_cost_nanousd, amount_nanousd),"),
    (
        "charged_nanousd = min(seen_cost_nanousd, amount",
        "charged_nanousd = max(seen_cost_nanousd, amount",
    ),
    (
        "charged_nanousd = min(seen_cost_nanousd, amount_nanousd)",
        "charged_nanousd = seen_cost_nanousd",
    ),
    ("shortfall_nanousd = max(seen_cost_nanousd - amount_nanousd, 0)", "shortfall_nanousd = 0"),
    (
        'amount_nanousd, 0)\n           WHERE state = \'open\'"""',
        'amount_nanousd, 0)"""',
    ),
)

STORED = (
    ("INSERT OR REPLACE", "INSERT OR IGNORE"),
    ("row_id % SWEEP_EVERY == 0", "True"),
    ("row_id % SWEEP_EVERY == 0", "False"),
    ("stored_responses) + ? AND created_at_ms < ?", "stored_responses) + ? AND created_at_ms > ?"),
    ("WHERE id < (SELECT min(id) FROM stored_responses) + ?", "WHERE id < ?"),
    ("user_id = ? AND provider = ?", "? > 0 AND provider = ?"),
    ("user_id = ? AND provider = ?", "user_id = ? AND ? <> ''"),
    ("response_hash = ? AND created", "? <> '' AND created"),
    ("created_at_ms >= ?", "created_at_ms > ?"),
    ("created_at_ms >= ?", "? > 0"),
)

MUTATIONS = [
    *(("llmproxy/ledger.py", *each) for each in LEDGER),
    *(("llmproxy/crediting.py", *each) for each in CREDITING),
    *(("llmproxy/recovery.py", *each) for each in RECOVERY),
    *(("llmproxy/stored_responses.py", *each) for each in STORED),
]


def is_killed(copy: Path, file: str, old: str, new: str) -> bool:
    """Say whether the tests fail with a change that is made, and undone, in a copy."""
    source = (copy / file).read_text()
    assert source.count(old) == 1, f"{file} has {source.count(old)} times: {old}"
    (copy / file).write_text(source.replace(old, new))
    try:
        return run_tests(copy) == 1
    finally:
        (copy / file).write_text(source)


def run_tests(copy: Path) -> int:
    """Return pytest's exit code, 1 for a failed test; a run without end is one too."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--numprocesses=0", *TESTS]
    # Two versions of a module may have the same size and time: no byte code.
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        ended = subprocess.run(
            command,
            cwd=copy,
            env=environment,
            timeout=RUN_S_MAX,
            stdout=subprocess.DEVNULL,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return 1
    return ended.returncode


def main() -> int:
    """Try each mutation, or those whose text contains an argument; 1 when one survives."""
    wanted = sys.argv[1:]
    mutations = [each for each in MUTATIONS if all(word in " ".join(each) for word in wanted)]
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch)
        for name in ("llmproxy", "tests"):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", copy)
        assert run_tests(copy) == 0, "the tests fail without any mutation"
        survivors = 0
        for file, old, new in mutations:
            if not is_killed(copy, file, old, new):
                survivors += 1
                print(f"survived: {file}\n- {old}\n+ {new}", flush=True)
    print(f"{len(mutations)} mutations, {survivors} survived")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
