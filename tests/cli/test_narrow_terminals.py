"""Tables on a terminal of 80 columns: what matters most stays on one line."""

import re

from tests.cli.conftest import Program
from tests.support.books import Book

COLUMNS = 80


def shown(program: Program, *command: str) -> list[str]:
    """The lines of the command's table, without colours and what was said before it."""
    ran = program.run_in_terminal(*command, COLUMNS=str(COLUMNS))
    assert ran.code == 0
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", ran.out).splitlines()
    table = lines[next(i for i, line in enumerate(lines) if re.match("[A-Z]+ ", line)) :]
    assert max(len(line) for line in table) <= COLUMNS
    return [line.rstrip() for line in table]


def one_request_to(program: Program, model: str) -> None:
    book = Book(program.database)
    book.settled()
    with book.write() as tx:
        tx.execute("UPDATE requests SET model = ?", (model,))
        tx.execute("UPDATE requests_by_day SET model = ?", (model,))
    book.close()


def test_a_short_column_leaves_its_room_to_a_long_one(program: Program) -> None:
    one_request_to(program, "claude-sonnet-5-5-20261101")
    title, row = shown(program, "usage", "requests")
    assert title.split() == ["REQUEST", "USER", "MODEL", "STATE", "COST", "USD"]
    assert "openai/claude-sonnet-5-5-20261101" in row


def test_bars_stay_where_names_are_long(program: Program) -> None:
    one_request_to(program, "gpt-3.5-turbo-instruct")
    _, row, total = shown(program, "usage", "summary", "--by", "model")
    assert row.startswith("openai/gpt-3.5-turbo-instruct ")
    assert "█" in row
    assert total.startswith("total")


def test_a_price_list_keeps_the_models_in_one_piece(program: Program) -> None:
    title, *rows = shown(program, "catalog", "list", "--provider", "anthropic", "--limit", "0")
    assert title.split()[:4] == ["MODEL", "MODE", "INPUT", "OUTPUT"]
    assert rows
    assert all(row.startswith("anthropic/claude-") for row in rows)
