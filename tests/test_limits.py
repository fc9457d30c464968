"""Limits as values, and how they are kept."""

from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from llmproxy import accounts, limit_store
from llmproxy.accounts import User
from llmproxy.limits import Limits, client_address, parse_address, parse_networks
from llmproxy.meters import DAY_MS
from llmproxy.reports import LimitsUse, find_limits_use, find_spent
from llmproxy.storage.database import Tx
from llmproxy.usage import Leg
from llmproxy.vault import hash_api_key
from tests.support.books import NOW_MS, Book

EVERY: dict[str, object] = {
    "requests_per_minute": 60,
    "tokens_per_minute": 100_000,
    "concurrent_max": 4,
    "daily_budget_nanousd": 5_000_000_000,
    "monthly_budget_nanousd": 50_000_000_000,
    "spend_per_hour_nanousd": 2_000_000_000,
    "models": ("gpt-4o-mini", "claude-*"),
    "providers": ("openai", "anthropic"),
    "networks": (ip_network("10.0.0.0/8"), ip_network("::1/128")),
}


@pytest.mark.parametrize(
    ("pattern", "model", "is_allowed"),
    [
        ("gpt-4o", "gpt-4o", True),
        ("gpt-4o", "gpt-4o-mini", False),
        ("gpt-4o*", "gpt-4o", True),
        ("gpt-4o*", "gpt-4o-mini", True),
        ("gpt-4o*", "xgpt-4o", False),
        ("*", "anything", True),
        ("g*o", "gpt-4o", False),
        ("GPT-4o", "gpt-4o", False),
    ],
)
def test_a_star_stands_for_the_rest_at_the_end_only(
    pattern: str, model: str, is_allowed: bool
) -> None:
    assert Limits(1, models=("other", pattern)).allows_model(model) is is_allowed


def test_an_empty_list_allows_nothing_and_none_everything() -> None:
    assert Limits(1).allows_model("x")
    assert Limits(1).allows_provider("x")
    assert Limits(1).allows_address(None)
    assert not Limits(1, models=()).allows_model("x")
    assert not Limits(1, providers=()).allows_provider("x")
    assert not Limits(1, networks=()).allows_address(ip_address("127.0.0.1"))


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("10.0.0.1", "10.0.0.1"),
        (" 10.0.0.1 ", "10.0.0.1"),
        ("10.0.0.1:80", "10.0.0.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("10.0.0", None),
        ("unknown", None),
        ("_hidden", None),
        ("", None),
    ],
)
def test_an_address_is_read_in_every_form_that_proxies_write(
    text: str, address: str | None
) -> None:
    assert parse_address(text) == (None if address is None else ip_address(address))


def test_the_last_address_that_is_no_proxys_is_the_clients() -> None:
    trusted = parse_networks("127.0.0.1, 192.168.0.0/16")
    asked = [b"1.1.1.1, 2.2.2.2", b"192.168.3.3"]
    assert client_address("127.0.0.1", asked, trusted) == ip_address("2.2.2.2")
    assert client_address("3.3.3.3", asked, trusted) == ip_address("3.3.3.3")
    assert client_address("127.0.0.1", [], trusted) == ip_address("127.0.0.1")
    assert client_address("127.0.0.1", [b"192.168.3.3"], trusted) == ip_address("192.168.3.3")
    assert client_address("127.0.0.1", [b"junk"], trusted) is None
    assert client_address("", [b"1.1.1.1"], trusted) is None
    assert client_address("127.0.0.1", asked, ()) == ip_address("127.0.0.1")


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("::ffff:10.1.2.3", "10.1.2.3/32"),
        ("::ffff:0:0/96", "0.0.0.0/0"),
        ("::/0", "::/0"),
        ("fe80::/10", "fe80::/10"),
    ],
)
def test_a_network_of_ipv4_within_ipv6_is_what_it_stands_for(text: str, network: str) -> None:
    assert parse_networks(text) == (ip_network(network),)


@pytest.mark.parametrize("text", ["10.0.0.1/8", "10.0.0.0/33", "localhost", "1.2.3"])
def test_what_is_no_network_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_networks(text)


@pytest.fixture
def book(tmp_path: Path) -> Book:
    return Book(tmp_path / "data" / "llmproxy.db")


def ann(tx: Tx) -> User:
    return accounts.find_user(tx, "ann")


def key_ids(tx: Tx) -> list[int]:
    return [key.id for key in accounts.find_live_keys(tx, ann(tx), "laptop", now_ms=NOW_MS)]


def test_limits_come_back_as_they_were_set_and_each_can_be_lifted(book: Book) -> None:
    with book.write() as tx:
        assert (
            accounts.load_principals(tx, now_ms=NOW_MS)[hash_api_key(book.api_key)].limits is None
        )
        set_ = limit_store.set_key_limits(tx, key_ids(tx), EVERY)
        limit_store.set_user_limits(tx, ann(tx).id, {"concurrent_max": 9})
    with book.read() as tx:
        principal = accounts.load_principals(tx, now_ms=NOW_MS)[hash_api_key(book.api_key)]
        (key,) = accounts.list_api_keys(tx, None, limit=-1)
        assert principal.limits == key.limits == set_ == Limits(set_.id, **EVERY)  # type: ignore[arg-type]
        assert principal.user_limits == ann(tx).limits
        assert principal.user_limits is not None
        assert principal.user_limits.concurrent_max == 9
    left = dict(EVERY)
    for name in EVERY:
        del left[name]
        with book.write() as tx:
            limit_store.set_key_limits(tx, key_ids(tx), {name: None})
            (key,) = accounts.list_api_keys(tx, None, limit=-1)
        assert key.limits == (Limits(set_.id, **left) if left else None)  # type: ignore[arg-type]


def test_a_key_that_replaces_another_shares_its_limits(book: Book) -> None:
    with book.write() as tx:
        limit_store.set_key_limits(tx, key_ids(tx), {"requests_per_minute": 5})
        accounts.rotate_api_key(tx, ann(tx), "laptop", now_ms=NOW_MS, overlap_ms=1000)
        old, new = accounts.list_api_keys(tx, ann(tx), limit=-1)
        assert old.limits == new.limits
        # Set while both work, it holds for both.
        limit_store.set_key_limits(tx, key_ids(tx), {"concurrent_max": 1})
        old, new = accounts.list_api_keys(tx, ann(tx), limit=-1)
        assert old.limits == new.limits
        assert new.limits is not None
        assert (new.limits.requests_per_minute, new.limits.concurrent_max) == (5, 1)


def test_limits_set_while_one_key_replaces_another_hold_for_both(book: Book) -> None:
    with book.write() as tx:
        accounts.rotate_api_key(tx, ann(tx), "laptop", now_ms=NOW_MS, overlap_ms=1000)
        limit_store.set_key_limits(tx, key_ids(tx), {"concurrent_max": 1})
        old, new = accounts.list_api_keys(tx, ann(tx), limit=-1)
        assert old.limits == new.limits == Limits(1, concurrent_max=1)


def test_a_budget_counts_what_was_spent_with_a_key_that_has_been_replaced(book: Book) -> None:
    book.settled(Leg(output=100))
    with book.write() as tx:
        # Nothing is limited yet; the old key ends at once.
        new_key = accounts.rotate_api_key(tx, ann(tx), "laptop", now_ms=NOW_MS)
        assert accounts.load_principals(tx, now_ms=NOW_MS)[hash_api_key(new_key)].limits is None
        limits = limit_store.set_key_limits(tx, key_ids(tx), {"daily_budget_nanousd": 1})
        spent = find_spent(tx, book.user_id, limits.id, now_ms=book.now_ms)
    assert spent.today == spent.month == book_cost(book) > 0


def test_only_the_limits_of_live_keys_are_read_and_each_once(book: Book) -> None:
    with book.write() as tx:
        ended = limit_store.set_key_limits(tx, key_ids(tx), EVERY)
        accounts.revoke_api_key(tx, ann(tx), "laptop", now_ms=NOW_MS)
        tx.execute("UPDATE limits SET networks = 'nobody reads this' WHERE id = ?", (ended.id,))
        key = hash_api_key(accounts.create_api_key(tx, ann(tx), "laptop", now_ms=NOW_MS))
        live = limit_store.set_key_limits(tx, key_ids(tx), EVERY)
        assert live.id != ended.id
        found = [accounts.load_principals(tx, now_ms=NOW_MS)[key].limits for _ in range(2)]
    assert found == [live, live]
    assert found[0] is found[1]


def test_a_new_key_of_a_used_name_has_no_limits(book: Book) -> None:
    with book.write() as tx:
        limit_store.set_key_limits(tx, key_ids(tx), {"requests_per_minute": 5})
        accounts.revoke_api_key(tx, ann(tx), "laptop", now_ms=NOW_MS)
        accounts.create_api_key(tx, ann(tx), "laptop", now_ms=NOW_MS)
        assert accounts.list_api_keys(tx, ann(tx), limit=-1)[-1].limits is None


def test_what_is_used_is_what_the_database_knows(book: Book) -> None:
    begin_ms = NOW_MS - NOW_MS % DAY_MS + 3_600_000
    book.now_ms = begin_ms
    with book.write() as tx:
        limits_id = limit_store.set_key_limits(tx, key_ids(tx), {"tokens_per_minute": 5}).id
        other = accounts.create_user(tx, "ben", now_ms=NOW_MS)
    book.settled(Leg(input=1000, cache_read=30, output=100))
    cost = book_cost(book)
    book.placed("0.5")

    def used(after_ms: int, user_id: int = 1, resumed_at_ms: int = 0, **more: int) -> LimitsUse:
        limits = Limits(limits_id, spend_per_hour_nanousd=1, resumed_at_ms=resumed_at_ms)
        with book.read() as tx:
            return find_limits_use(tx, user_id, limits, now_ms=begin_ms + after_ms, **more)

    assert used(5_000) == LimitsUse(2, 1130, 1, cost, cost, cost)
    assert used(70_000) == LimitsUse(0, 0, 1, cost, cost, cost)
    assert used(70_000, resumed_at_ms=begin_ms + 60_000) == LimitsUse(0, 0, 1, cost, cost, 0)
    assert used(700_000) == LimitsUse(0, 0, 1, cost, cost, 0)
    assert used(DAY_MS) == LimitsUse(0, 0, 1, 0, cost, 0)
    assert used(40 * DAY_MS) == LimitsUse(0, 0, 1, 0, 0, 0)
    assert used(5_000, user_id=other.id) == LimitsUse(0, 0, 0, 0, 0, 0)
    # What ended lately came at most ten minutes, an answer and a minute ago.
    assert used(601_000).last_10_minutes == cost
    assert used(601_000, answer_s_max=0).last_10_minutes == cost
    with book.read() as tx:
        unlimited = find_limits_use(tx, 1, Limits(limits_id), now_ms=begin_ms + 5_000)
    assert unlimited == LimitsUse(2, 1130, 1, cost, cost, None)
    assert "spent_10_minutes_usd" not in unlimited.as_json()


def book_cost(book: Book) -> int:
    with book.read() as tx:
        return int(tx.execute("SELECT sum(cost_nanousd) FROM requests").fetchone()[0])


def test_a_suspension_lasts_until_it_is_lifted_and_an_older_one_does_not_come_back(
    book: Book,
) -> None:
    with book.write() as tx:
        limits = limit_store.set_key_limits(tx, key_ids(tx), {"spend_per_hour_nanousd": 1})
        limit_store.suspend(tx, limits.id, "too fast", NOW_MS)
        (key,) = accounts.list_api_keys(tx, None, limit=-1)
        assert (key.state(NOW_MS), key.limits and key.limits.suspended_reason) == (
            "suspended",
            "too fast",
        )
        # It outlives the limit that it came from.
        limit_store.set_key_limits(tx, [key.id], {"spend_per_hour_nanousd": None})
        assert accounts.list_api_keys(tx, None, limit=-1)[0].state(NOW_MS) == "suspended"
        limit_store.resume(tx, limits.id, now_ms=NOW_MS + 5)
        assert accounts.list_api_keys(tx, None, limit=-1)[0].state(NOW_MS) == "live"
        # Decided before the resumption, written after it.
        limit_store.suspend(tx, limits.id, "too fast", NOW_MS + 4)
        assert accounts.list_api_keys(tx, None, limit=-1)[0].state(NOW_MS) == "live"
        limit_store.suspend(tx, limits.id, "too fast", NOW_MS + 6)
        assert accounts.list_api_keys(tx, None, limit=-1)[0].state(NOW_MS) == "suspended"
