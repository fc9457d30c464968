"""Commands `db …`: the database file. Copies of it are in `db_copies.py`."""

from typing import TYPE_CHECKING

from llmproxy.cli import db_copies, opening, output
from llmproxy.cli.options import Json, examples, noun

if TYPE_CHECKING:
    from llmproxy.storage.database import AdminDatabase

app = noun(
    "Look at the database file, copy it, put a copy back.",
    "llmproxy db backup before-upgrade.db",
    "llmproxy db info",
)
app.command("backup", epilog=db_copies.BACKUP_EXAMPLES)(db_copies.backup)
app.command("restore", epilog=db_copies.RESTORE_EXAMPLES)(db_copies.restore)


@app.command(epilog=examples("llmproxy db migrate", "llmproxy db migrate --json"))
def migrate(as_json: Json = False) -> None:
    """Bring the database to this version's schema. Not while a server runs.

    Any command that opens the database does so too, and so does `llmproxy serve`; here it is
    done by itself, and said. Make a backup before: there is no way back but to restore it.
    """
    from llmproxy.storage.copies import stored_schema

    with opening.database(must_exist=True, as_it_is=True) as database, database.read() as tx:
        before = stored_schema(tx)
    with opening.database(must_exist=True) as database, database.read() as tx:
        now = stored_schema(tx)
        path = database.files.path
    if as_json:
        output.print_json({"path": str(path), "from": before, "to": now})
    elif before == now:
        output.print_line(f"{path} has schema {now} already: nothing to do.")
    else:
        output.print_line(f"{path} was brought from schema {before} to {now}.")


@app.command(epilog=examples("llmproxy db vacuum", "llmproxy db vacuum --json"))
def vacuum(as_json: Json = False) -> None:
    """Make the database file as small as it can be. Not while a server runs.

    It is written anew, without the room that `usage prune` has freed: its disk needs as much room
    again meanwhile, and so does the directory for temporary files.
    """
    with opening.database(must_exist=True) as database:
        path = database.files.path
        with opening.serving(database.files, "vacuum"):
            before = path.stat().st_size
            database.vacuum()
            now = path.stat().st_size
    if as_json:
        output.print_json({"path": str(path), "bytes_before": before, "bytes": now})
    else:
        output.print_line(f"{path}: {now:,} bytes, {before:,} before.")


@app.command(epilog=examples("llmproxy db info", "llmproxy db info --json"))
def info(as_json: Json = False) -> None:
    """Show the database's path, size and schema. And who serves it."""
    with opening.database(must_exist=True) as database:
        facts = _facts(database)
    if as_json:
        output.print_json(facts)
        return
    rows = facts.pop("rows")
    assert isinstance(rows, dict)
    output.print_fields(
        (name.replace("_", " "), "–" if value is None else _number(value))
        for name, value in facts.items()
    )
    output.print_line("")
    output.print_fields((f"rows in {table}", _number(count)) for table, count in rows.items())


def _number(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _facts(database: "AdminDatabase") -> dict[str, object]:
    import sqlite3

    from llmproxy import reports

    files = database.files
    is_served = files.serving_lock.is_held()
    with database.read() as tx:
        return {
            "path": str(files.path),
            "bytes": files.path.stat().st_size,
            "wal_bytes": files.wal.stat().st_size if files.wal.exists() else 0,
            "schema_version": tx.execute("PRAGMA user_version").fetchone()[0],
            "journal_mode": tx.execute("PRAGMA journal_mode").fetchone()[0],
            "sqlite_version": sqlite3.sqlite_version,
            "served_by": files.serving_lock.holder() if is_served else None,
            "rows": reports.count_rows(tx),
        }
