"""What `doctor` finds, and what it says to do."""

import json
from email.utils import formatdate
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llmproxy import errors, ledger
from llmproxy.cli import opening
from llmproxy.cli.doctor import check_room
from llmproxy.cli.doctor_online import check_provider_clocks
from llmproxy.clock import RequestIds
from llmproxy.probe import Probe
from llmproxy.storage.database import DatabaseFiles
from llmproxy.storage.spill import Spill
from tests.cli.conftest import Quick
from tests.support.answers import plain
from tests.support.books import NOW_MS, Book
from tests.support.stub_provider import StubProvider


@pytest.fixture
def at_the_books_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands see the time at which the book was written."""
    monkeypatch.setattr(opening, "now_ms", lambda: NOW_MS + 1000)


def check(quick: Quick, name: str, code: int = 0) -> dict[str, Any]:
    ran = quick.run("doctor", "--json")
    assert ran.code == code, ran
    checks: list[dict[str, Any]] = json.loads(ran.out)["checks"]
    return next(each for each in checks if each["name"] == name)


def test_a_wrong_setting_fails_and_the_other_checks_go_on(
    quick: Quick, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick.ok("users", "create", "ann")
    monkeypatch.setenv("LLMPROXY_PORT", "http")
    found = check(quick, "settings", code=1)
    assert (found["status"], "LLMPROXY_PORT" in found["message"]) == ("fail", True)
    assert check(quick, "credit", code=1)["status"] == "ok"


def test_files_that_others_can_reach_are_named_with_the_command_that_mends_them(
    quick: Quick,
) -> None:
    quick.ok("users", "create", "ann")
    config = quick.home / "config"
    config.mkdir(mode=0o700)
    (config / "config.toml").write_text("")
    (config / "config.toml").chmod(0o644)
    found = check(quick, "files")
    assert found["status"] == "warn"
    assert found["advice"] == f"chmod go-rwx {config / 'config.toml'}"
    (config / "config.toml").chmod(0o600)
    assert check(quick, "files")["status"] == "ok"


@pytest.mark.usefixtures("at_the_books_time")
def test_models_that_were_asked_for_without_a_price_are_named(quick: Quick, book: Book) -> None:
    def refuse(model: str, error: errors.ApiError, at_ms: int = NOW_MS) -> None:
        outcome = msgspec.structs.replace(
            book.outcome(), status=error.status, model=model, reason=error.message
        )
        with book.write() as tx:
            ledger.record_unheld(
                tx,
                RequestIds().new(at_ms),
                api_key_id=1,
                endpoint="chat/completions",
                outcome=outcome,
                now_ms=at_ms,
            )

    unknown = errors.unknown_model_pricing("openai", "x", ["gpt-4o"], [])
    assert check(quick, "prices")["status"] == "ok"
    refuse("gpt-4o-mini", unknown)  # has a price by now
    refuse("gpt-9", errors.no_active_provider_keys("openai"))
    refuse("gpt-8", unknown, at_ms=NOW_MS - 8 * 86_400_000)
    assert check(quick, "prices")["status"] == "ok"
    for _ in range(2):
        refuse("gpt-11", unknown)
    for number in range(12, 18):
        refuse(f"gpt-{number}", unknown)
    found = check(quick, "prices")
    assert found["status"] == "warn"
    assert "openai/gpt-11 (2 times), openai/gpt-12 (1 time), " in found["message"]
    assert found["message"].endswith("openai/gpt-15 (1 time) and 2 more")
    assert "catalog set" in found["advice"]
    assert "llmproxy catalog set PROVIDER MODEL --in-price" in found["advice"]


@pytest.mark.usefixtures("at_the_books_time")
def test_holds_that_no_answer_can_explain_are_told(
    quick: Quick, book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = DatabaseFiles(quick.database).serving_lock
    server.acquire("pid 4711")
    try:
        book.placed("2")
        assert check(quick, "holds") == {
            "name": "holds",
            "status": "ok",
            "message": "1 open, 2.00 USD held",
            "advice": None,
        }
        monkeypatch.setattr(opening, "now_ms", lambda: NOW_MS + 3_600_000 + 1000)
        found = check(quick, "holds")
        assert "1 of them longer than total_timeout_s (3600 s)" in found["message"]
        assert found["status"] == "warn"
    finally:
        server.release()
    assert "no server runs" in check(quick, "holds")["message"]


def test_a_request_of_the_future_tells_of_a_wrong_clock(
    quick: Quick, book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    book.settled()
    monkeypatch.setattr(opening, "now_ms", lambda: NOW_MS)
    assert check(quick, "clock")["status"] == "ok"
    monkeypatch.setattr(opening, "now_ms", lambda: NOW_MS - 86_400_000)
    found = check(quick, "clock")
    assert found["status"] == "warn"
    assert (
        "2026-11-17 11:06:40 UTC here, but the newest request is of 2026-11-18"
        in (found["message"])
    )


def online(quick: Quick, code: int) -> list[dict[str, Any]]:
    ran = quick.run("doctor", "--online", "--json")
    assert ran.code == code, ran
    checks = json.loads(ran.out)["checks"]
    return [each for each in checks if each["name"].startswith("online")]


def test_online_the_providers_are_asked_with_their_keys(quick: Quick) -> None:
    quick.ok("users", "create", "ann")
    assert online(quick, 0)[0]["message"] == "there is no provider key to try"
    with StubProvider() as stub:
        stub.handle = plain(
            b'{"object": "list", "data": [{"id": "a"}, {"id": "b"}]}',
            headers=[("date", formatdate(usegmt=True))],
        )
        quick.ok("providers", "set", "openai", "--base-url", f"{stub.url}/v1", "--yes")
        quick.ok("provider-keys", "add", "openai", stdin="sk-one-0123456789abcdef")
        found = online(quick, 0)
        assert [(each["status"], each["message"]) for each in found] == [
            ("ok", "openai answers to 1 key: 2 models"),
            ("ok", "agrees with the providers'"),
        ]
        stub.handle = plain(b'{"error": {"message": "Incorrect API key"}}', status=401)
        refused = online(quick, 1)[0]
        assert (refused["status"], "Incorrect API key" in refused["message"]) == ("fail", True)
        assert refused["advice"].endswith("providers check openai")
        assert "sk-one" not in json.dumps(refused)
    gone = online(quick, 1)[0]
    assert (gone["status"], "unreachable" in gone["message"]) == ("fail", True)
    assert quick.run("doctor").code == 0


@pytest.mark.parametrize(
    ("dates", "status", "says"),
    [
        ((), "ok", "no provider said"),
        (("nonsense", ""), "ok", "no provider said"),
        (("Wed, 18 Nov 2026 11:06:10 GMT",), "ok", "agrees"),
        (("Wed, 18 Nov 2026 11:05:00 GMT",), "warn", "100 s ahead of"),
        (("Wed, 18 Nov 2026 12:06:40 GMT",), "warn", "3,600 s behind"),
        (("Wed, 18 Nov 2026 12:06:40 GMT", "Wed, 18 Nov 2026 11:06:41 GMT"), "ok", "agrees"),
    ],
)
def test_our_clock_is_compared_with_the_providers(
    dates: tuple[str, ...], status: str, says: str
) -> None:
    found = check_provider_clocks([Probe("ok", 200, "", date) for date in dates], NOW_MS)
    assert (found.status, says in found.message) == (status, True)


def test_what_waits_for_the_next_start_of_the_server_is_told(quick: Quick) -> None:
    quick.ok("users", "create", "ann")
    spill = Spill(DatabaseFiles(quick.database).spill)
    names = {each["name"] for each in json.loads(quick.run("doctor", "--json").out)["checks"]}
    assert "spill" not in names
    spill.append(b"a settlement")
    spill.close()
    found = check(quick, "spill")
    assert found["status"] == "warn"
    assert found["message"] == f"1 record in {spill.path} that could not be written"


def test_little_room_on_the_disk_is_a_warning() -> None:
    assert check_room(Path("llmproxy.db"), 500 * 10**6).status == "ok"
    found = check_room(Path("llmproxy.db"), 499 * 10**6)
    assert (found.status, found.message) == ("warn", "499 MB free beside llmproxy.db")
