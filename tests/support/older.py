"""Databases as earlier versions of the program made them."""

from contextlib import closing
from pathlib import Path

from sqlite_utils import Database

from llmproxy.storage import migrations
from llmproxy.storage.database import connect, prepare_directory

SECOND_SCHEMA = "m002_own_prices_and_expiry"


def make_first_schema(path: Path, *statements: str) -> None:
    """Make a database of schema 1 and run further statements on it."""
    prepare_directory(path.parent)
    with closing(connect(path)) as connection:
        db = Database(connection, execute_plugins=False)
        migrations._migrations.apply(db, stop_before=SECOND_SCHEMA)
        for statement in (*statements, "PRAGMA user_version = 1"):
            connection.execute(statement)


def turn_back_to_first_schema(path: Path) -> None:
    """Make a database one of schema 1 again, with all rows that it has; nobody may have it open."""
    older = path.with_name(path.name + ".older")
    make_first_schema(older)
    with closing(connect(older)) as connection:
        connection.execute("PRAGMA foreign_keys=OFF")
        connection.execute("ATTACH ? AS newer", (str(path),))
        connection.execute("BEGIN")
        tables = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
        for (table,) in tables.fetchall():
            if "sqlite_" in table:  # SQLite's own, and the one in which migrations are counted
                continue
            rows = connection.execute(f"PRAGMA table_info({table})").fetchall()
            columns = ", ".join(row["name"] for row in rows)
            connection.execute(
                f"INSERT INTO {table}({columns}) SELECT {columns} FROM newer.{table}"
            )
        connection.execute("COMMIT")
        connection.execute("DETACH newer")
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    older.rename(path)
