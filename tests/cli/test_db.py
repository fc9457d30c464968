"""Copies of the database, restores and migrations, on the command line."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from llmproxy.storage.database import SCHEMA_VERSION, AdminDatabase, DatabaseFiles
from tests.cli.conftest import Program, Quick
from tests.support.books import Book
from tests.support.older import make_first_schema


def beside(path: Path) -> list[str]:
    """What there is in a directory, but for the locks."""
    kept = (each.name for each in path.parent.iterdir())
    return sorted(name for name in kept if not name.endswith((".lock", ".gate")))


def balance(quick: Quick) -> str:
    shown: str = quick.json("users", "show", "ann")["balance_usd"]
    return shown


def test_a_backup_is_one_private_file_with_all_that_was_committed(
    quick: Quick, book: Book, tmp_path: Path
) -> None:
    book.settled()
    file = tmp_path / "copies" / "backup.db"
    file.parent.mkdir()
    with book.write() as tx:  # a writer in the middle of its transaction hinders nothing
        tx.execute("UPDATE users SET rate_multiplier_micro = 7")
        ran = quick.run("db", "backup", str(file))
    assert ran.code == 0, ran
    assert ran.out.endswith("bytes, its ledger is right.\n")
    assert "master key is not in it" in ran.err
    assert beside(file) == ["backup.db"]
    assert file.stat().st_mode & 0o777 == 0o600
    with closing(sqlite3.connect(file)) as copy:
        assert copy.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        assert copy.execute("SELECT rate_multiplier_micro FROM users").fetchone() == (1_200_000,)
        assert copy.execute("SELECT count(*) FROM requests").fetchone() == (1,)


def test_a_backup_replaces_no_file_unasked_and_never_the_database(
    quick: Quick, book: Book, tmp_path: Path
) -> None:
    file = tmp_path / "backup.db"
    file.write_text("precious")
    assert "add --yes" in quick.fails(2, "db", "backup", str(file))
    assert file.read_text() == "precious"
    assert "the database itself" in quick.fails(2, "db", "backup", str(book.path), "--yes")
    assert quick.json("db", "backup", str(file), "--yes") == {
        "path": str(file),
        "bytes": file.stat().st_size,
        "verified": True,
        "problems_found": 0,
    }
    assert quick.json("db", "backup", str(file), "--yes", "--no-verify")["verified"] is None
    (tmp_path / "folder").mkdir()
    dated = quick.json("db", "backup", str(tmp_path / "folder"))["path"]
    assert Path(dated).name.startswith("llmproxy-20")
    missing = tmp_path / "missing" / "backup.db"
    assert "cannot be made: No such file" in quick.fails(5, "db", "backup", str(missing))


def test_a_backup_with_a_wrong_ledger_says_so_and_replaces_no_good_one(
    quick: Quick, book: Book, tmp_path: Path
) -> None:
    book.settled()
    file = tmp_path / "backup.db"
    quick.ok("db", "backup", str(file))
    good = file.read_bytes()
    with book.write() as tx:
        tx.execute("UPDATE wallets SET balance_nanousd = balance_nanousd + 1")
    ran = quick.run("db", "backup", str(file), "--yes")
    assert ran.code == 1
    assert "wallet of user ann: balance is" in ran.out
    assert f"It is {file}.wrong" in ran.err
    assert file.read_bytes() == good
    assert "The ledger in" in quick.run("db", "restore", f"{file}.wrong", "--yes").err
    ran = quick.run("db", "backup", str(file), "--yes", "--json")
    assert (ran.code, json.loads(ran.out)["verified"]) == (1, False)


def test_a_restore_brings_the_past_back_and_keeps_the_present(
    quick: Quick, book: Book, tmp_path: Path
) -> None:
    file = tmp_path / "backup.db"
    quick.ok("db", "backup", str(file))
    quick.ok("credits", "add", "ann", "5")
    book.close()
    assert "add --yes" in quick.fails(2, "db", "restore", str(file))
    assert balance(quick) == "15.00"
    ran = quick.run("db", "restore", str(file), "--yes", "--json")
    assert ran.code == 0, ran
    assert ran.err == f"{file}: 1 user, 0 requests; its ledger is right.\n"
    assert balance(quick) == "10.00"
    kept = Path(json.loads(ran.out)["kept"])
    assert sorted([kept.name, "llmproxy.db"]) == [
        name for name in beside(kept) if not name.endswith(("-wal", "-shm"))
    ]
    assert kept.stat().st_mode & 0o777 == 0o600
    assert quick.database.stat().st_mode & 0o777 == 0o600
    with closing(AdminDatabase(kept)) as old, old.read() as tx:
        assert tx.execute("SELECT balance_nanousd FROM wallets").fetchone()[0] == 15 * 10**9
    assert quick.json("ledger", "verify")["ok"] is True
    assert "is now what" in quick.ok("db", "restore", str(kept), "--yes")
    assert balance(quick) == "15.00"


def test_a_restore_waits_for_no_command_that_has_the_database_open(
    quick: Quick, book: Book, tmp_path: Path
) -> None:
    """Its write-ahead log would be that of another file afterwards."""
    file = tmp_path / "backup.db"
    quick.ok("db", "backup", str(file))
    before = beside(quick.database)
    assert "has the database open" in quick.fails(5, "db", "restore", str(file), "--yes").replace(
        f"{file}: 1 user, 0 requests; its ledger is right.\n", ""
    )
    assert beside(quick.database) == before
    book.settled()
    assert quick.json("ledger", "verify")["ok"] is True


def test_a_restore_is_refused_while_a_server_runs(quick: Quick, book: Book, tmp_path: Path) -> None:
    file = tmp_path / "backup.db"
    quick.ok("db", "backup", str(file))
    book.close()
    server = DatabaseFiles(quick.database).serving_lock
    server.acquire("pid 4711")
    try:
        assert "already running on this database (pid 4711)" in quick.fails(
            4, "db", "restore", str(file), "--yes"
        )
    finally:
        server.release()
    quick.ok("db", "restore", str(file), "--yes")


def test_what_is_no_backup_is_not_restored(quick: Quick, book: Book, tmp_path: Path) -> None:
    book.close()
    file = tmp_path / "file"
    assert "There is no file" in quick.fails(5, "db", "restore", str(file), "--yes")
    file.write_bytes(b"not a database at all, by no means" * 100)
    assert "cannot be read as a database" in quick.fails(5, "db", "restore", str(file), "--yes")
    for version, said in ((0, "not of llmproxy"), (SCHEMA_VERSION + 1, "of a newer llmproxy")):
        file.unlink()
        with closing(sqlite3.connect(file)) as other:
            other.execute("CREATE TABLE t(a)")
            other.execute(f"PRAGMA user_version = {version}")
        assert said in quick.fails(5, "db", "restore", str(file), "--yes")
    assert "llmproxy.db.restoring" not in beside(quick.database)
    assert balance(quick) == "10.00"


def test_a_damaged_database_is_set_aside_as_it_is(quick: Quick, book: Book, tmp_path: Path) -> None:
    file = tmp_path / "backup.db"
    quick.ok("db", "backup", str(file))
    book.close()
    quick.database.write_bytes(b"no database any more" * 1000)
    quick.fails(5, "users", "list")
    kept = quick.json("db", "restore", str(file), "--yes")["kept"]
    assert Path(kept).read_bytes() == b"no database any more" * 1000
    assert balance(quick) == "10.00"


def test_a_backup_restores_on_a_machine_without_a_database(
    quick: Quick, book: Book, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "backup.db"
    quick.ok("db", "backup", str(file))
    monkeypatch.setenv("LLMPROXY_HOME", str(tmp_path / "other"))
    assert quick.json("db", "restore", str(file), "--yes")["kept"] is None
    assert balance(quick) == "10.00"


def test_an_older_database_is_copied_as_it_is_and_migrated_when_asked(
    quick: Quick, tmp_path: Path
) -> None:
    make_first_schema(quick.database)
    file = tmp_path / "backup.db"
    assert "not checked: it has the older schema 1" in quick.ok("db", "backup", str(file))
    migrated = quick.json("db", "migrate")
    assert (migrated["from"], migrated["to"]) == (1, SCHEMA_VERSION)
    assert "nothing to do" in quick.ok("db", "migrate")
    quick.ok("db", "restore", str(file), "--yes")
    assert quick.json("db", "migrate")["from"] == SCHEMA_VERSION
    assert quick.json("db", "info")["schema_version"] == SCHEMA_VERSION


def test_nothing_is_migrated_under_a_running_server(quick: Quick) -> None:
    make_first_schema(quick.database)
    server = DatabaseFiles(quick.database).serving_lock
    server.acquire("pid 4711")
    try:
        assert "a server is running on it (pid 4711)" in quick.fails(5, "db", "migrate")
    finally:
        server.release()
    assert quick.json("db", "migrate")["from"] == 1


def test_there_is_nothing_to_copy_or_migrate_without_a_database(
    quick: Quick, tmp_path: Path
) -> None:
    for command in (("backup", str(tmp_path / "x.db")), ("migrate",)):
        assert "There is no database" in quick.fails(5, "db", *command)
    assert not quick.home.exists()


def test_a_backup_shows_its_progress_on_a_terminal(program: Program, tmp_path: Path) -> None:
    Book(program.database).close()
    ran = program.run_in_terminal("db", "backup", str(tmp_path / "backup.db"))
    assert ran.code == 0
    assert "Copying" in ran.out
    assert (tmp_path / "backup.db").stat().st_size > 0
