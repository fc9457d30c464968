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
