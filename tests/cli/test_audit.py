"""The audit log: whatever a command changes stands in it, and nothing else does."""

import shlex
import signal
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from llmproxy import audit
from llmproxy.catalog_parser import packaged_path
from llmproxy.cli import opening
from llmproxy.clock import Clock
from llmproxy.rollups import DAY_MS
from llmproxy.storage.database import AdminDatabase
from tests.cli.conftest import Program, Quick
from tests.cli.test_every_command import COMMANDS
from tests.support.books import NOW_MS, Book

SECRET = "sk-proj-0123456789abcdefghijklmnop"
OLLAMA = "ollama --base-url http://127.0.0.1:11434/v1 --dialect openai --no-key"


class Case(NamedTuple):
    """A call that changes something; the audit log has its arguments, unless it says else."""

    arguments: str
    details: str | None = None
    stdin: str = ""


WRITING = {
    "users create": Case("ben --credit 5 --key laptop --quiet", "ben --credit 5 --key laptop"),
    "users set": Case("ann --rate-multiplier 1.5 --rpm none --admin"),
    "users disable": Case("ann"),
    "users enable": Case("ann"),
    "users login-link": Case("ann"),
    "users sign-out": Case("ann"),
    "credits add": Case("ann 5.00 --reason 'invoice 17' --idempotency-key invoice-17"),
    "credits adjust": Case("ann --by -1.50 --reason 'paid out'"),
    "keys create": Case("ann --name ci --daily-budget 2"),
    "keys rotate": Case("ann laptop --overlap 24h"),
    "keys set": Case("ann laptop --models 'gpt-4o-mini,claude-*'"),
    "keys resume": Case("ann laptop"),
    "keys revoke": Case("ann laptop"),
    "providers add": Case("gateway --base-url https://llm.example.com/v1 --dialect openai"),
    "providers set": Case("ollama --no-stream-options"),
    "providers remove": Case("ollama --yes", "ollama"),
    "providers pause": Case("openai --reason 'invoice unpaid'"),
    "providers resume": Case("openai"),
    "provider-keys add": Case("openai --name second", None, SECRET + "2"),
    "provider-keys disable": Case("openai key-1 --reason rotating"),
    "provider-keys enable": Case("openai key-1"),
    "provider-keys remove": Case("openai key-1 --yes", "openai key-1"),
    "provider-keys rekey": Case("--yes", ""),
    "catalog set": Case("openai gpt-4o --in-price 3 --no-reasoning --alias one --alias two"),
    "catalog update": Case("--from newer.json --yes", "--from newer.json"),
    "pool set": Case("openai 100"),
    "usage prune": Case("--before 2026-11-19 --yes", "--before 2026-11-19"),
    "db restore": Case("copy.db --yes", "copy.db"),
}
READING = {
    "clients list": "",
    "clients show": "curl",
    "users list": "",
    "users show": "ann",
    "credits list": "ann",
    "keys list": "ann",
    "keys show": "ann laptop",
    "providers list": "",
    "providers show": "openai",
    "providers check": "ollama",
    "provider-keys list": "",
    "catalog list": "",
    "catalog show": "openai/gpt-4o",
    "catalog check": "",
    "usage requests": "",
    "usage summary": "",
    "usage export": "",
    "explain": "ID",
    "ledger verify": "",
    "pool show": "",
    "audit list": "",
    "doctor": "",
    "config show": "",
    "db backup": "other.db",
    "db info": "",
    "db migrate": "",
    "db vacuum": "",
}
RUNS_ON = {"serve", "demo"}
REFUSED = (
    "users create ann",
    "users set ann --rate-multiplier nothing",
    "users disable nobody",
    "credits add ann 0",
    "credits adjust ann --by -100 --reason much",
    "keys revoke ann none",
    "providers add openai --base-url http://example.com/v1 --dialect openai",
    "provider-keys remove openai none --yes",
    "provider-keys remove openai key-1",
    "catalog set openai gpt-4o --in-price 300",
    "catalog set openai gpt-4o --remove",
    "catalog update --from missing.json",
    "pool set openai -1",
    "pool set nobody 1",
    "usage prune --before 2026-11-19",
    "db restore copy.db",
    "db restore missing.db --yes",
)
CHANGING_NOTHING = (
    "catalog update --from newer.json --dry-run",
    "usage prune --before 2026-11-19 --dry-run",
    "usage prune --before 2020-01-01 --yes",
    "credits add ann 5 --idempotency-key before",
    "provider-keys rekey --help",
)


@pytest.fixture
def filled(quick: Quick, book: Book, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Quick:
    """A home in which every command finds something, and a directory with files for some."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Clock, "now_ms", lambda _: NOW_MS + 3 * DAY_MS)
    book.settled()
    quick.ok("users", "login-link", "ann")
    quick.ok("keys", "set", "ann", "laptop", "--rpm", "60")
    quick.ok("credits", "add", "ann", "5", "--idempotency-key", "before")
    quick.ok("provider-keys", "add", "openai", stdin=SECRET)
    quick.ok("providers", "add", *OLLAMA.split())
    quick.ok("db", "backup", "copy.db")
    newer = packaged_path().read_text("utf-8").replace('"updated": "20', '"updated": "21')
    Path("newer.json").write_text(newer)
    return quick


def acts(home: Quick) -> list[audit.Act]:
    """All that stands in the audit log, oldest first."""
    database = AdminDatabase(home.database)
    try:
        with database.read() as tx:
            return audit.list_acts(tx, limit=-1)[::-1]
    finally:
        database.close()


def test_every_command_is_known_to_write_or_not_to() -> None:
    assert sorted(COMMANDS) == sorted([*WRITING, *READING, *RUNS_ON])


@pytest.mark.parametrize("name", WRITING)
def test_what_a_command_changes_stands_in_the_audit_log_once(
    filled: Quick, book: Book, name: str
) -> None:
    case = WRITING[name]
    if name == "db restore":
        book.close()
    before = acts(filled)
    filled.ok(*name.split(), *shlex.split(case.arguments), stdin=case.stdin)
    known, added = acts(filled)[:-1], acts(filled)[-1]
    # The audit log of a copy is as old as the copy is.
    assert known == before if name != "db restore" else known == before[: len(known)]
    details = case.arguments if case.details is None else case.details
    assert (added.actor, added.act, added.details) == ("cli:olga", name, details)
    assert added.created_at_ms == NOW_MS + 3 * DAY_MS


def test_a_master_key_that_seals_nothing_is_changed_with_a_note_of_it(filled: Quick) -> None:
    filled.ok("provider-keys", "remove", "openai", "key-1", "--yes")
    master, before = filled.home / "config" / "master.key", acts(filled)
    old = master.read_text()
    filled.ok("provider-keys", "rekey", "--yes")
    assert master.read_text() != old
    assert [act.act for act in acts(filled)[len(before) :]] == ["provider-keys rekey"]


@pytest.mark.parametrize("name", READING)
def test_what_only_reads_does_not(filled: Quick, book: Book, name: str) -> None:
    arguments = READING[name]
    if arguments == "ID":
        arguments = filled.json("usage", "requests")[0]["id"]
    if name == "db vacuum":
        book.close()
    before = acts(filled)
    assert filled.run(*name.split(), *arguments.split()).code in {0, 1}
    assert acts(filled) == before


@pytest.mark.parametrize("line", REFUSED)
def test_what_is_refused_does_not(filled: Quick, book: Book, line: str) -> None:
    if line.startswith("db"):
        book.close()
    before = acts(filled)
    assert filled.run(*shlex.split(line)).code != 0
    assert acts(filled) == before


@pytest.mark.parametrize("line", CHANGING_NOTHING)
def test_what_changes_nothing_does_not(filled: Quick, line: str) -> None:
    before = acts(filled)
    filled.ok(*line.split())
    assert acts(filled) == before


def test_no_secret_stands_in_it(filled: Quick) -> None:
    made = filled.json("users", "create", "ben", "--key", "laptop")["api_key"]
    link = filled.json("users", "login-link", "ben")["url"].rpartition("/")[2]
    Path("key").write_text(SECRET + "3")
    filled.ok("provider-keys", "add", "anthropic", "--key-file", "key")
    master = (filled.home / "config" / "master.key").read_text().strip()
    Path("new.key").write_text("ab" * 32)
    filled.ok("provider-keys", "rekey", "--new-key-file", "new.key", "--yes")
    rotated = filled.json("keys", "rotate", "ben", "laptop")["api_key"]
    written = repr(acts(filled))
    assert "provider-keys rekey" in written
    for secret in (made, rotated, link, master, "ab" * 32, SECRET[:12]):
        assert secret not in written


def test_an_address_is_noted_without_what_proves_who_asks() -> None:
    shown = opening._without_secrets("https://ann:secret@example.com/a/catalog.json?token=secret")
    assert shown == "https://example.com/a/catalog.json?…"
    assert opening._without_secrets("why? because") == "why? because"


def fail(*_: Any, **__: Any) -> None:  # noqa: ANN401
    raise RuntimeError("no")


def test_what_cannot_be_noted_is_not_done(
    filled: Quick, book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = filled.home / "config" / "model_catalog.json"
    monkeypatch.setattr(audit, "note", fail)
    book.close()
    for line in ("users create ben", "catalog update --from newer.json --yes",
                 "db restore copy.db --yes", "provider-keys rekey --yes"):  # fmt: skip
        with pytest.raises(RuntimeError):
            filled.run(*line.split())
    assert [user["name"] for user in filled.json("users", "list")] == ["ann"]
    assert not catalog.exists()
    assert len(acts(filled)) == 5  # the copy has as many less one
    assert filled.json("doctor")["ok"]


def test_a_catalog_file_that_was_there_is_put_back(
    filled: Quick, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled.ok("catalog", "update", "--from", "newer.json", "--yes")
    catalog = filled.home / "config" / "model_catalog.json"
    first = catalog.read_bytes()
    Path("newest.json").write_bytes(first.replace(b'"updated": "21', b'"updated": "22'))
    monkeypatch.setattr(audit, "note", fail)
    with pytest.raises(RuntimeError):
        filled.run("catalog", "update", "--from", "newest.json", "--yes")
    assert catalog.read_bytes() == first


def test_what_fails_after_its_first_change_is_not_noted(filled: Quick) -> None:
    before = acts(filled)
    filled.fails(4, "users", "create", "ben", "--key", "a\nb")
    assert acts(filled) == before


KILLED = """
import os, signal
from llmproxy import audit
from llmproxy.cli import app
note = audit.note
def and_die(tx, **act):
    note(tx, **act)
    os.kill(os.getpid(), signal.SIGKILL)
audit.note = and_die
app.app(["users", "create", "ben", "--credit", "5"], prog_name="llmproxy")
"""


def test_a_command_that_is_killed_leaves_neither_its_change_nor_its_act(program: Program) -> None:
    program.run("users", "create", "ann")
    assert program.run_python(KILLED).code == -signal.SIGKILL
    listed = program.run("users", "list").out
    assert "ann" in listed
    assert "ben" not in listed
    assert "ben" not in program.run("audit", "list").out


def test_the_list_can_be_searched_and_cut(quick: Quick, monkeypatch: pytest.MonkeyPatch) -> None:
    quick.ok("users", "create", "ann")
    monkeypatch.setenv("USER", "ben")
    quick.ok("credits", "add", "ann", "5", "--reason", "a\x1b[31mred")
    quick.ok("users", "disable", "ann")
    listed = quick.json("audit", "list")
    assert [act["act"] for act in listed] == ["users disable", "credits add", "users create"]
    assert listed[0].keys() == {"id", "created_at", "actor", "act", "details"}
    by_ben = quick.json("audit", "list", "--actor", "cli:ben", "--limit", "1")
    assert [act["act"] for act in by_ben] == ["users disable"]
    assert len(quick.json("audit", "list", "--text", "CREDITS add ANN")) == 1
    assert quick.json("audit", "list", "--actor", "ben") == []
    shown = quick.run("audit", "list", "--limit", "2")
    assert "cli:ben" in shown.out
    assert "\x1b" not in shown.out
    assert "--limit 20" in shown.err
