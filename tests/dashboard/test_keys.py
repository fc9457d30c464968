"""API keys that users make themselves: they work at once, end at once, and are shown once."""

import re
import shlex
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import pytest

from llmproxy import accounts, audit
from llmproxy.clock import Clock
from llmproxy.dashboard.keys import KEYS_PER_DAY_MAX, LIVE_KEYS_MAX
from llmproxy.dashboard.pages import SHOWN_CLIENTS
from tests.dashboard.helpers import KEYS, Desk, shown_key
from tests.dashboard.rows import add_settled
from tests.support.limits import limit_key

GUIDE = Path(__file__).parents[2] / "docs" / "clients.md"


def test_a_key_works_at_once_and_is_seen_only_on_the_page_that_made_it(desk: Desk) -> None:
    ann = desk.signed_in()
    key = ann.create_key("laptop")
    assert desk.ask(key) == 200
    ids = ann.key_ids()
    assert set(ids) == {"test", "laptop"}
    for path in (KEYS, f"{KEYS}/{ids['laptop']}", "/dashboard"):
        assert key not in ann.text(path)
    desk.books.settled_wallet(ann.name)
    assert "openai/gpt-4o" in ann.text("/dashboard")
    assert re.search(r"Last used</dt><dd>today", ann.text(f"{KEYS}/{ids['laptop']}"))


def test_a_revoked_key_is_refused_from_then_on(desk: Desk) -> None:
    ann = desk.signed_in()
    for _ in range(5):
        key = ann.create_key("laptop")
        assert desk.ask(key) == 200
        answer = ann.submit(f"{KEYS}/{ann.key_ids()['laptop']}/revoke")
        assert (answer.status_code, answer.headers["location"]) == (303, KEYS)
        assert desk.ask(key) == 401
    assert "Ended keys (5)" in ann.text(KEYS)


@pytest.fixture
def signing_out(desk: Desk) -> Iterator[None]:
    """Whoever makes an API key is signed out in that moment, as by an operator."""
    with desk.books.write() as tx:
        tx.execute(
            """CREATE TRIGGER signing_out AFTER INSERT ON api_keys
               BEGIN DELETE FROM sessions WHERE user_id = NEW.user_id; END"""
        )
    yield
    with desk.books.write() as tx:
        tx.execute("DROP TRIGGER signing_out")


@pytest.mark.parametrize("act", ["create", "rotate"])
def test_a_new_key_is_shown_even_if_nothing_more_can_be_read(
    desk: Desk, request: pytest.FixtureRequest, act: str
) -> None:
    """It can be seen on that page alone, and an old one that it replaces has ended."""
    ann = desk.signed_in()
    rotate = f"{KEYS}/{ann.key_ids()['test']}/rotate"
    request.getfixturevalue("signing_out")
    answer = ann.submit(rotate) if act == "rotate" else ann.submit(KEYS, name="laptop")
    assert answer.status_code == 200
    assert desk.ask(shown_key(answer.text)) == 200
    assert ann.get(KEYS).status_code == 303


@pytest.mark.parametrize(("overlap", "old_status"), [("0", 401), ("24", 200)])
def test_a_rotated_key_is_replaced_at_once_or_later(
    desk: Desk, overlap: str, old_status: int
) -> None:
    ann = desk.signed_in()
    old_id = ann.key_ids()["test"]
    limit_key(desk.books, ann.name, "test", requests_per_minute=60)
    answer = ann.submit(f"{KEYS}/{old_id}/rotate", overlap=overlap)
    new = shown_key(answer.text)
    assert desk.ask(new) == 200
    assert desk.ask(ann.api_key) == old_status
    # The page may be loaded again, which sends the form again: nothing is made twice.
    again = ann.submit(f"{KEYS}/{old_id}/rotate", overlap=overlap)
    assert (again.status_code, "has been replaced" in again.text) == (422, True)
    with desk.books.database.read() as tx:
        user = accounts.find_user(tx, ann.name)
        keys = accounts.list_api_keys(tx, user, limit=-1)
    assert len(keys) == 2
    assert keys[0].limits == keys[1].limits
    assert keys[0].limits is not None


def test_the_limits_and_the_end_of_the_form_are_those_of_the_key(desk: Desk) -> None:
    ann = desk.signed_in()
    before_ms = Clock().now_ms()
    ann.create_key(
        "course",
        expires="7",
        daily_budget_nanousd="0.50",
        monthly_budget_nanousd=" 5 ",
        requests_per_minute="2",
        tokens_per_minute="1000",
        concurrent_max="3",
        models="gpt-4o-mini, claude-*",
        spend_per_hour_nanousd="3",
        providers="openai, anthropic",
        networks="127.0.0.1, 10.0.0.0/8",
    )
    with desk.books.database.read() as tx:
        user = accounts.find_user(tx, ann.name)
        (key,) = accounts.find_live_keys(tx, user, "course", now_ms=Clock().now_ms())
    assert key.limits is not None
    assert key.expires_at_ms is not None
    assert 0 <= key.expires_at_ms - before_ms - 7 * 86_400_000 < 60_000
    assert key.limits.as_json() == {
        "requests_per_minute": 2,
        "tokens_per_minute": 1000,
        "concurrent_max": 3,
        "daily_budget_usd": "0.50",
        "monthly_budget_usd": "5.00",
        "spend_per_hour_usd": "3.00",
        "models": ["gpt-4o-mini", "claude-*"],
        "providers": ["openai", "anthropic"],
        "networks": ["127.0.0.1/32", "10.0.0.0/8"],
    }
    page = unescape(ann.text(f"{KEYS}/{key.id}"))
    assert "$0.00 of $0.500000" in page
    assert "gpt-4o-mini, claude-*" in page


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"name": ""}, "Give the key a name"),
        ({"name": "test"}, "You have an API key named 'test' already"),
        ({"name": "<b>"}, "cannot be a key name"),
        ({"name": "x", "expires": "8"}, "Choose when the key ends"),
        ({"name": "x", "daily_budget_nanousd": "-1"}, "Budget per day: it must not be below zero"),
        ({"name": "x", "daily_budget_nanousd": "five"}, "Budget per day: 'five' is no amount"),
        (
            {"name": "x", "requests_per_minute": "0"},
            "Requests per minute: it must be a whole",
        ),
        ({"name": "x", "spend_per_hour_nanousd": "x"}, "Spend per hour: 'x' is no amount"),
        ({"name": "x", "providers": "Open AI"}, "Providers: it must be a list"),
        ({"name": "x", "networks": "10.0.0.1/8"}, "Networks: it must be addresses or networks"),
        ({"name": "x", "models": "no-such-model"}, "'no-such-model' is not in the model catalog"),
        ({"name": "x", "models": ",*a"}, "Models: it must be a list such as"),
    ],
)
def test_a_wrong_field_makes_no_key_and_says_what_to_do(
    desk: Desk, fields: dict[str, str], said: str
) -> None:
    ann = desk.signed_in()
    answer = ann.submit(KEYS, **{"models": "gpt-4o", **fields})
    assert answer.status_code == 422
    page = unescape(answer.text)
    assert said in page
    assert f'value="{fields.get("models", "gpt-4o")}"' in page  # what was typed is still there
    assert set(ann.key_ids()) == {"test"}


def test_a_user_has_a_bounded_number_of_keys_and_makes_a_bounded_number_a_day(desk: Desk) -> None:
    ann = desk.signed_in()
    now_ms = Clock().now_ms()
    with desk.books.write() as tx:
        user = accounts.find_user(tx, ann.name)
        for n in range(LIVE_KEYS_MAX - 1):
            accounts.create_api_key(tx, user, f"k{n}", now_ms=now_ms)
    assert "which is the most" in ann.submit(KEYS, name="more").text
    with desk.books.write() as tx:
        for n in range(LIVE_KEYS_MAX - 1):
            accounts.revoke_api_key(tx, user, f"k{n}", now_ms=now_ms)
        for _ in range(KEYS_PER_DAY_MAX - LIVE_KEYS_MAX):
            accounts.create_api_key(tx, user, "again", now_ms=now_ms)
            accounts.revoke_api_key(tx, user, "again", now_ms=now_ms)
    assert "within a day" in ann.submit(KEYS, name="more").text
    rotated = ann.submit(f"{KEYS}/{ann.key_ids()['test']}/rotate")
    assert "within a day" in rotated.text
    with desk.books.write() as tx:
        tx.execute(
            "UPDATE api_keys SET created_at_ms = ? WHERE user_id = ?",
            (now_ms - 86_400_000, user.id),
        )
    ann.create_key("more")


def test_a_keys_page_has_what_was_spent_lately_by_answers_that_may_have_run(desk: Desk) -> None:
    """Each costs 7,500 µUSD (rows.py) and ended 5 minutes ago; none may take two hours."""
    ann = desk.signed_in()
    limit_key(desk.books, ann.name, "test", spend_per_hour_nanousd=3_000_000_000)
    now_ms = Clock().now_ms()
    for minutes in (50, 120):
        lasted = {"duration_ms": (minutes - 5) * 60_000}
        add_settled(desk.books, ann.name, at_ms=now_ms - minutes * 60_000, outcome=lasted)
    page = ann.text(f"{KEYS}/{ann.key_ids()['test']}")
    assert "<dt>Spend per hour</dt><dd>$3.00; $0.007500 in the last 10 minutes</dd>" in page


def test_another_users_key_is_as_missing_as_one_that_never_was(desk: Desk) -> None:
    ann, eve = desk.signed_in(), desk.signed_in()
    anns = ann.key_ids()["test"]
    for key_id in (str(anns), "999999999", "0", "-1", "x", "9" * 30):
        for method, tail in (("GET", ""), ("POST", "/rotate"), ("POST", "/revoke")):
            headers = {"sec-fetch-site": "same-origin"}
            answer = eve.request(method, f"{KEYS}/{key_id}{tail}", headers=headers)
            assert answer.status_code == 404, (method, key_id, tail)
            assert "test" not in answer.text.replace("latest", "")
    assert desk.ask(ann.api_key) == 200
    assert set(ann.key_ids()) == {"test"}
    desk.books.settled_wallet(ann.name)
    assert ann.name not in eve.text("/dashboard")
    assert "None yet" in eve.text("/dashboard")


def test_the_settings_name_this_server_and_are_those_of_the_guide(desk: Desk) -> None:
    ann = desk.signed_in()
    page = unescape(ann.submit(KEYS, name="laptop").text)
    key = shown_key(page)
    url = desk.site.proxy.url
    assert f'export BASE_URL="{url}"\nexport APP_API_KEY="{key}"' in page
    assert f"{url}/v1/anthropic" in page
    guide = GUIDE.read_text("utf-8").replace("http://127.0.0.1:8000", url).replace("llmp_…", key)
    for name in SHOWN_CLIENTS:
        shown = re.search(rf'<code id="{name}-text">(.*?)\n</code>', page, re.DOTALL)
        assert shown, name
        assert shown[1] in guide


def test_a_replaced_key_is_revoked_alone(desk: Desk) -> None:
    ann = desk.signed_in()
    old, old_id = ann.api_key, ann.key_ids()["test"]
    newer = shown_key(ann.submit(f"{KEYS}/{old_id}/rotate", overlap="24").text)
    assert (desk.ask(old), desk.ask(newer)) == (200, 200)
    assert ann.submit(f"{KEYS}/{old_id}/revoke").status_code == 303
    assert (desk.ask(old), desk.ask(newer)) == (401, 200)
    with desk.books.database.read() as tx:
        noted = [(act.act, act.details) for act in audit.list_acts(tx, limit=2)]
    assert noted[1] == ("keys rotate", f"{ann.name} test --overlap 24h")
    assert noted[0][0] == "keys revoke"
    assert re.fullmatch(rf"{ann.name} test \(llmp_\S+, which was replaced\)", noted[0][1])
    # The one that replaced it ends with all that it replaced.
    newest = shown_key(ann.submit(f"{KEYS}/{old_id + 1}/rotate", overlap="1").text)
    assert ann.submit(f"{KEYS}/{old_id + 2}/revoke").status_code == 303
    assert (desk.ask(newer), desk.ask(newest)) == (401, 401)


def test_a_key_is_noted_with_its_end_and_limits_as_the_command_takes_them(desk: Desk) -> None:
    ann = desk.signed_in()
    ann.create_key("a b", expires="7", daily_budget_nanousd="0.50", models="gpt-4o, claude-*")
    with desk.books.database.read() as tx:
        (act,) = audit.list_acts(tx, limit=1)
    assert act.details == (
        f"{ann.name} --name 'a b' --expires 7d --daily-budget 0.50 --models 'gpt-4o, claude-*'"
    )
    words = shlex.split(act.details.replace("'a b'", "again"))
    desk.run(*act.act.split(), *words, "--quiet")
    with desk.books.database.read() as tx:
        user, now_ms = accounts.find_user(tx, ann.name), Clock().now_ms()
        made, again = (
            accounts.find_live_keys(tx, user, name, now_ms=now_ms)[0] for name in ("a b", "again")
        )
    assert made.limits is not None
    assert again.limits is not None
    assert made.limits.as_json() == again.limits.as_json()
