"""The database file: modes, schema, transactions, and who may do what beside whom."""

import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from llmproxy import key_pool
from llmproxy.errors import DatabaseError, RefusedError
from llmproxy.storage import database, migrations
from llmproxy.storage.database import AdminDatabase, DatabaseFiles, require_serving_lock
from llmproxy.storage.locks import FileLock
from tests.support.older import make_first_schema


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "llmproxy.db"


@contextmanager
def another_process(path: Path, code: str) -> Iterator["subprocess.Popen[str]"]:
    """Run code that takes a lock in a process of its own, for as long as the block runs."""
    process = subprocess.Popen(
        [sys.executable, "-c", f"{code}\nprint('held', flush=True)\ninput()", str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


SERVE = """
import sys; from pathlib import Path
from llmproxy.storage.database import DatabaseFiles, require_serving_lock
files = DatabaseFiles(Path(sys.argv[1]))
require_serving_lock(files, 'pid 41, since 2026-11-23T09:00:00Z')
"""


def test_both_modules_agree_on_the_schema_version() -> None:
    assert database.SCHEMA_VERSION == migrations.SCHEMA_VERSION


def test_files_are_for_their_owner_alone(path: Path) -> None:
    opened = AdminDatabase(path)
    with opened.write() as tx:
        tx.execute("INSERT INTO boots(pid, version, started_at_ms) VALUES(1, 'x', 1)")
    assert path.parent.stat().st_mode & 0o777 == 0o700
    beside = sorted(file.name for file in path.parent.iterdir())
    assert beside == [f"llmproxy.db{end}" for end in ("", "-shm", "-wal", ".gate", ".lock")]
    assert {file.stat().st_mode & 0o777 for file in path.parent.iterdir()} == {0o600}
    opened.close()
    assert not DatabaseFiles(path).wal.exists()


def test_looser_modes_are_refused(path: Path) -> None:
    AdminDatabase(path).close()
    path.chmod(0o644)
    with pytest.raises(DatabaseError, match="chmod 600"):
        AdminDatabase(path)
    path.chmod(0o600)
    path.parent.chmod(0o755)
    with pytest.raises(DatabaseError, match="chmod 700"):
        AdminDatabase(path)


def test_commits_are_durable_and_checked(path: Path) -> None:
    opened = AdminDatabase(path)
    with opened.read() as tx:
        pragmas = ("journal_mode", "synchronous", "foreign_keys", "wal_autocheckpoint")
        found = [tx.execute(f"PRAGMA {name}").fetchone()[0] for name in pragmas]
    opened.close()
    assert found == ["wal", 2, 1, 0]


def test_every_table_is_strict(path: Path) -> None:
    opened = AdminDatabase(path)
    with opened.read() as tx:
        ours = "name NOT LIKE 'sqlite%' AND name NOT LIKE '\\_%' ESCAPE '\\'"
        tables = tx.execute(
            f"SELECT name, sql FROM sqlite_schema WHERE type = 'table' AND {ours}"
        ).fetchall()
    opened.close()
    assert {name for name, _ in tables} >= {"users", "wallets", "holds", "transfers", "requests"}
    assert [name for name, sql in tables if "STRICT" not in sql] == []


def test_an_error_in_a_block_undoes_all_of_it(path: Path) -> None:
    opened = AdminDatabase(path)
    with pytest.raises(sqlite3.IntegrityError), opened.write() as tx:  # noqa: PT012
        tx.execute("INSERT INTO boots(pid, version, started_at_ms) VALUES(1, 'x', 1)")
        tx.execute("INSERT INTO wallets(user_id) VALUES(99)")
    with opened.read() as tx:
        assert tx.execute("SELECT count(*) FROM boots").fetchone()[0] == 0
    opened.close()


def test_a_reader_sees_one_moment_while_others_write(path: Path) -> None:
    reader, writer = AdminDatabase(path), AdminDatabase(path)
    count = "SELECT count(*) FROM boots"
    with reader.read() as seen:
        assert seen.execute(count).fetchone()[0] == 0
        with writer.write() as tx:
            tx.execute("INSERT INTO boots(pid, version, started_at_ms) VALUES(1, 'x', 1)")
        assert seen.execute(count).fetchone()[0] == 0
    with reader.read() as seen:
        assert seen.execute(count).fetchone()[0] == 1
    writer.close()
    reader.close()


def test_a_file_of_a_newer_version_is_refused(path: Path) -> None:
    AdminDatabase(path).close()
    connection = database.connect(path)
    connection.execute("PRAGMA user_version = 999")
    connection.close()
    with pytest.raises(DatabaseError, match="newer llmproxy"):
        AdminDatabase(path)


def test_what_is_no_database_is_refused(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    path.write_bytes(b"this is a text file, and long enough to be looked at as one" * 20)
    path.chmod(0o600)
    with pytest.raises(DatabaseError, match="cannot be used"):
        AdminDatabase(path)


def test_a_missing_file_can_be_insisted_on(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    with pytest.raises(DatabaseError, match="There is no database"):
        database.connect(path, must_exist=True)


def test_a_second_server_is_refused_and_told_of_the_first(path: Path) -> None:
    with another_process(path, SERVE):
        with pytest.raises(RefusedError, match=r"already running .*\(pid 41, since 2026"):
            require_serving_lock(DatabaseFiles(path), "pid 42")
        assert DatabaseFiles(path).serving_lock.is_held()
    files = DatabaseFiles(path)
    assert not files.serving_lock.is_held()
    require_serving_lock(files, "pid 42")
    assert files.serving_lock.holder() == "pid 42"
    files.serving_lock.release()


def test_nothing_is_migrated_while_it_is_served(path: Path) -> None:
    refusal = rf"needs {database.SCHEMA_VERSION}, and a server is running .*pid 41"
    with another_process(path, SERVE), pytest.raises(DatabaseError, match=refusal):
        AdminDatabase(path)
    AdminDatabase(path).close()


def test_a_database_of_the_first_schema_is_brought_up_to_date(path: Path) -> None:
    user = "INSERT INTO users(name, rate_multiplier_micro, created_at_ms) VALUES('ann', 1000000, 1)"
    make_first_schema(path, user)
    opened = AdminDatabase(path)
    with opened.read() as tx:
        assert tx.execute("SELECT name FROM users").fetchone()["name"] == "ann"
        assert tx.execute("SELECT count(expires_at_ms) FROM api_keys").fetchone()[0] == 0
        assert tx.execute("SELECT count(*) FROM catalog_overrides").fetchone()[0] == 0
        assert tx.execute("SELECT count(is_stream) FROM holds").fetchone()[0] == 0
        assert tx.execute("PRAGMA user_version").fetchone()[0] == database.SCHEMA_VERSION
    opened.close()


GOOGLE = "https://generativelanguage.googleapis.com/v1beta/openai"


def test_a_provider_of_an_older_database_goes_on_where_it_was(path: Path) -> None:
    """Gemini had one face only, and it was the base URL that its keys are sealed for."""
    insert = """INSERT INTO providers(name, dialect, base_url, injects_usage, created_at_ms)
                VALUES('{}', '{}', '{}', 1, 7)"""
    key = """INSERT INTO provider_keys(provider_id, name, sealed, masked, state_since_ms, state_by,
                                       created_at_ms) VALUES(1, 'key-1', x'01', 'm', 1, 'cli', 1)"""
    make_first_schema(
        path,
        insert.format("gemini", "openai", GOOGLE),
        insert.format("anthropic", "anthropic", "https://api.anthropic.com"),
        insert.format("own", "openai", GOOGLE),
        key,
    )
    with closing(AdminDatabase(path)) as opened, opened.write() as tx:
        found = {one.name: (one.dialect, one.base_url) for one in key_pool.list_providers(tx)}
        assert found == {
            "gemini": ("gemini", GOOGLE),
            "anthropic": ("anthropic", "https://api.anthropic.com"),
            "own": ("openai", GOOGLE),
        }
        assert [one.provider for one in key_pool.list_provider_keys(tx)] == ["gemini"]
        assert tx.execute("PRAGMA foreign_key_check").fetchall() == []
        assert tx.execute("PRAGMA integrity_check").fetchone()[0] == "ok"


@pytest.mark.parametrize(
    "gateway",
    # The last is another path, and no end that would be taken off it.
    ["https://gateway.example.com/v1", "https://gateway.example.com/V1Beta/OpenAI"],
)
def test_gemini_behind_a_gateway_goes_on_speaking_openais_dialect(path: Path, gateway: str) -> None:
    make_first_schema(
        path,
        f"""INSERT INTO providers(name, dialect, base_url, injects_usage, created_at_ms)
            VALUES('gemini', 'openai', '{gateway}', 1, 7)""",
    )
    with closing(AdminDatabase(path)) as opened, opened.read() as tx:
        (provider,) = key_pool.list_providers(tx)
    assert (provider.dialect, provider.base_url) == ("openai", gateway)


@pytest.mark.parametrize("is_old", [True, False])
def test_the_checks_of_the_money_tables_hold(path: Path, is_old: bool) -> None:
    """They are rewritten in place, in old databases and new ones."""
    if is_old:
        make_first_schema(path)
    opened = AdminDatabase(path)
    with opened.write() as tx:
        tx.execute("PRAGMA defer_foreign_keys = ON")
        for kind in ("credit", "adjust"):
            tx.execute(_TRANSFER, (kind,))
        for table, insert, values in (
            ("transfers", _TRANSFER, ("CREDIT",)),
            ("holds", _HOLD, ("SETTLED", "none")),
            ("holds", _HOLD, ("settled", "NONE")),
            ("requests", _REQUEST, ("SETTLED", "none")),
            ("requests", _REQUEST, ("settled", "NONE")),
        ):
            with pytest.raises(sqlite3.IntegrityError, match="CHECK"):
                tx.execute(insert, values)
            (text,) = tx.execute(
                "SELECT sql FROM sqlite_schema WHERE name = ?", (table,)
            ).fetchone()
            # A list of three and more costs a table of its own whenever it is looked into.
            assert not re.search(r"IN ?\([^()]*,[^()]*,", text), text
        assert tx.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        tx.execute("ROLLBACK")
        tx.execute("BEGIN")
    opened.close()


def test_checks_that_may_not_be_rewritten_stay_as_they_are(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in SQLite's defensive mode, which cannot be switched on from Python 3.11."""

    def refused(_: object) -> None:
        raise sqlite3.OperationalError("table sqlite_master may not be modified")

    monkeypatch.setattr(migrations, "_rewrite_checks", refused)
    opened = AdminDatabase(path)
    with opened.write() as tx, pytest.raises(sqlite3.IntegrityError, match="CHECK"):
        tx.execute(_TRANSFER, ("CREDIT",))
    opened.close()


_TRANSFER = """
INSERT INTO transfers(wallet_id, kind, amount_nanousd, actor, reason, created_at_ms)
VALUES(1, ?, 5, 'me', 'why', 1)
"""
_HOLD = """
INSERT INTO holds(id, wallet_id, api_key_id, price_version_id, boot_id, endpoint,
  user_multiplier_micro, model_multiplier_micro, amount_nanousd, created_at_ms, ended_at_ms,
  state, basis, cost_nanousd, charged_nanousd, shortfall_nanousd)
VALUES(zeroblob(16), 1, 1, 1, 1, 'e', 1, 1, 0, 1, 2, ?, ?, 0, 0, 0)
"""
_REQUEST = """
INSERT INTO requests(id, user_id, api_key_id, provider, endpoint, model, is_stream, status, state,
  basis, hold_nanousd, cost_nanousd, charged_nanousd, shortfall_nanousd, attempts, duration_ms,
  created_at_ms)
VALUES(zeroblob(16), 1, 1, 'p', 'e', 'm', 0, 200, ?, ?, 0, 0, 0, 0, 1, 1, 1)
"""


def test_a_command_writes_beside_a_running_server(path: Path) -> None:
    AdminDatabase(path).close()
    with another_process(path, SERVE):
        opened = AdminDatabase(path)
        with opened.write() as tx:
            tx.execute("INSERT INTO boots(pid, version, started_at_ms) VALUES(1, 'x', 1)")
        opened.close()


def test_writers_share_the_gate_and_a_checkpointer_has_it_alone(path: Path) -> None:
    AdminDatabase(path).close()
    files = DatabaseFiles(path)
    first, second, alone = files.gate(), files.gate(), files.gate()
    assert first.try_acquire(shared=True)
    assert second.try_acquire(shared=True)
    assert not alone.try_acquire()
    first.release()
    second.release()
    assert alone.try_acquire()
    assert not first.try_acquire(shared=True)
    alone.release()


def test_a_writer_waits_for_the_gate_and_gives_up_in_time(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = AdminDatabase(path)
    monkeypatch.setattr(database, "GATE_TIMEOUT_S", 0.05)
    checkpointer = opened.files.gate()
    assert checkpointer.try_acquire()
    with pytest.raises(DatabaseError, match="busy"), opened.write():
        pytest.fail("the gate was closed")
    checkpointer.release()
    with opened.write():
        pass
    opened.close()


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from llmproxy.storage.locks import FileLock;"
        "lock = FileLock(Path(sys.argv[1])); assert lock.try_acquire()"
    )
    lock = FileLock(tmp_path / "lock")
    with another_process(tmp_path / "lock", code) as holder:
        assert not lock.try_acquire(shared=True)
        holder.kill()
        holder.wait()
        assert lock.try_acquire()
    lock.release()
    lock.release()


def test_long_work_copies_the_log_itself_unless_a_server_does(path: Path) -> None:
    database = AdminDatabase(path)
    wal = database.files.wal

    def write() -> int:
        with database.write() as tx:
            tx.execute(
                "INSERT INTO boots(pid, version, started_at_ms) VALUES(1, ?, 1)", ("x" * 300_000,)
            )
        return wal.stat().st_size

    sizes = []
    for _ in range(5):
        assert database.checkpoint_unless_served()
        sizes.append(write())
    # Written from its beginning each time: two such writes behind each other would be 600,000. It
    # is as large as the making of the schema has left it.
    assert len(set(sizes)) == 1
    assert sizes[0] < 500_000
    other = DatabaseFiles(path).serving_lock
    other.acquire("pid 41")
    assert not database.checkpoint_unless_served()
    assert write() > 600_000
    other.release()
    gate = database.files.gate()
    gate.try_acquire(shared=True)  # another command writes
    assert database.checkpoint_unless_served()
    assert write() > 900_000
    gate.release()
    database.close()
