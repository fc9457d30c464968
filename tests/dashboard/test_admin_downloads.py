"""Downloads of the operator's lists: all of what a page shows, and for operators alone."""

import csv
import io
import json
from collections.abc import Iterator

import pytest

from llmproxy import accounts, key_pool, provider_setup
from llmproxy.clock import Clock
from llmproxy.config import find_paths, load_vault
from llmproxy.dashboard.admin.tables import USERS_AT_ONCE
from llmproxy.presets import Preset
from tests.dashboard.helpers import Desk, Visitor
from tests.dashboard.operators import ADMIN
from tests.support.proxy import PROVIDER_KEY
from tests.support.waiting import wait_until

MADE_AT_MS = 1_700_000_000_000
SECRET = "sk-secret-of-a-download-0123"


@pytest.fixture(scope="module")
def boss(module_desk: Desk) -> Visitor:
    return module_desk.operator()


def rows_of(boss: Visitor, path: str) -> list[dict[str, str]]:
    answer = boss.get(f"{ADMIN}/{path}")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    return list(csv.DictReader(io.StringIO(answer.text)))


def lines_of(boss: Visitor, path: str) -> list[dict[str, object]]:
    answer = boss.get(f"{ADMIN}/{path}")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/jsonl"
    return [json.loads(line) for line in answer.text.splitlines()]


@pytest.mark.parametrize("page", ["users", "providers", "catalog"])
def test_the_page_leads_to_both(boss: Visitor, page: str) -> None:
    html = boss.text(f"{ADMIN}/{page}")
    for ending in ("csv", "jsonl"):
        path = f"{ADMIN}/{page}.{ending}"
        assert f'href="{path}"' in html
        told = boss.get(path).headers["content-disposition"]
        assert told.startswith(f'attachment; filename="llmproxy-{page}-20'), told
        assert told.endswith(f'.{ending}"'), told


def test_all_users_come_once_however_many_pieces_they_take(
    module_desk: Desk, boss: Visitor
) -> None:
    names = [f"many-{number:04d}" for number in range(2 * USERS_AT_ONCE + 1)]
    with module_desk.books.write() as tx:
        for name in reversed(names):
            accounts.create_user(tx, name, now_ms=MADE_AT_MS)
    assert [row["name"] for row in rows_of(boss, "users.csv?q=many-")] == names
    assert [line["name"] for line in lines_of(boss, "users.jsonl?q=MANY-")] == names
    # A full last piece is followed by an empty one, and that is the end.
    assert len(lines_of(boss, "users.jsonl?q=many-00")) == 100
    assert len(lines_of(boss, "users.jsonl?q=many-01")) == 100
    everybody = [row["name"] for row in rows_of(boss, "users.csv?page=2")]
    assert everybody == sorted(everybody)
    assert set(names) | {boss.name} <= set(everybody)


def test_a_user_has_the_figures_of_the_page_and_of_the_command(
    module_desk: Desk, boss: Visitor
) -> None:
    name, _ = module_desk.books.user(multiplier_micro=1_500_000)
    with module_desk.books.write() as tx:
        user = accounts.find_user(tx, name)
        tx.execute("UPDATE wallets SET balance_nanousd = 5250000001, held_nanousd = 250000000 "
                   "WHERE id = ?", (user.wallet_id,))  # fmt: skip
        accounts.set_user(tx, name, now_ms=MADE_AT_MS, is_disabled=True)
    try:
        (line,) = lines_of(boss, f"users.jsonl?q={name}")
        told = json.loads(module_desk.run("users", "show", name, "--json"))
    finally:
        with module_desk.books.write() as tx:
            tx.execute("UPDATE wallets SET balance_nanousd = 5000000000, held_nanousd = 0 "
                       "WHERE id = ?", (user.wallet_id,))  # fmt: skip
    assert line == {field: told[field] for field in line}
    assert (line["balance_usd"], line["held_usd"], line["available_usd"]) == (
        *("5.250000001", "0.25", "5.000000001"),
    )
    assert (line["rate_multiplier"], line["disabled"], line["admin"]) == ("1.5", True, False)
    (row,) = rows_of(boss, f"users.csv?q={boss.name}")
    assert (row["disabled"], row["admin"]) == ("false", "true")


@pytest.fixture
def spare(module_desk: Desk) -> Iterator[str]:
    """A provider with two keys, one of which is dead for a reason that looks like a formula."""
    environ, now_ms = module_desk.site.proxy.environ, Clock().now_ms()
    vault = load_vault(find_paths(environ), environ)
    assert vault is not None
    with module_desk.books.write() as tx:
        described = Preset("openai", "https://spare.example/v1")
        provider_setup.add_provider(tx, "spare", described, now_ms=now_ms)
        for name in ("first", "=second"):
            key_pool.add_provider_key(
                *(tx, "spare", SECRET + name),
                name=name.strip("="),
                vault=vault,
                actor="x",
                now_ms=now_ms,
            )
        tx.execute("UPDATE provider_keys SET name = '=second' WHERE name = 'second'")
        (_, dead) = key_pool.list_provider_keys(tx, "spare")
        key_pool.set_key_state(
            tx, dead.id, "dead", reason="@SUM(A1)", actor="x", now_ms=now_ms, upstream_status=401
        )
        key_pool.pause_provider(tx, "spare", reason="=HYPERLINK(1)", actor="x", now_ms=MADE_AT_MS)
    yield "spare"
    with module_desk.books.write() as tx:
        provider_setup.remove_provider(tx, "spare", actor="x", now_ms=now_ms)


def test_providers_come_with_their_keys_states_and_no_secret(boss: Visitor, spare: str) -> None:
    rows = [row for row in rows_of(boss, "providers.csv") if row["provider"] == spare]
    assert [(row["name"], row["state"], row["reason"], row["upstream_status"]) for row in rows] == [
        ("first", "active", "", ""),
        ("'=second", "dead", "'@SUM(A1)", "401"),
    ]
    for row in rows:
        assert row["provider_state"] == "paused"
        assert row["provider_reason"] == "'=HYPERLINK(1)"
        assert row["provider_since"] == "2023-11-14T22:13:20.000Z"
        assert row["base_url"] == "https://spare.example/v1"
    lines = [line for line in lines_of(boss, "providers.jsonl") if line["provider"] == spare]
    assert [line["name"] for line in lines] == ["first", "=second"]
    for ending in ("csv", "jsonl"):
        text = boss.get(f"{ADMIN}/providers.{ending}").text
        assert SECRET not in text
        assert PROVIDER_KEY not in text
        assert "sealed" not in text


def test_a_provider_without_a_key_has_a_row(module_desk: Desk, boss: Visitor) -> None:
    now_ms = Clock().now_ms()
    with module_desk.books.write() as tx:
        described = Preset("openai", "https://bare.example/v1")
        provider_setup.add_provider(tx, "bare", described, now_ms=now_ms)
    (line,) = [line for line in lines_of(boss, "providers.jsonl") if line["provider"] == "bare"]
    assert (line["provider_state"], line["name"], line["state"]) == ("no_active_keys", None, None)
    (row,) = [row for row in rows_of(boss, "providers.csv") if row["provider"] == "bare"]
    assert set(row) == set(line)


def test_the_catalog_comes_as_it_was_searched_for(module_desk: Desk, boss: Visitor) -> None:
    (row,) = rows_of(boss, "catalog.csv?search=gpt-4o-2024-08-06&page=9")
    assert (row["id"], row["in_price"], row["cache_read"], row["out_price"], row["own"]) == (
        *("gpt-4o", "2.50", "1.25", "10.00", "false"),
    )
    assert "gpt-4o-2024-08-06" in row["aliases"].split()
    everything = lines_of(boss, "catalog.jsonl")
    assert len(everything) == len(json.loads(listed(module_desk)))
    groq = lines_of(boss, "catalog.jsonl?provider=groq")
    assert groq == [line for line in everything if line["provider"] == "groq"] != []
    assert lines_of(boss, "catalog.jsonl?search=no-such-model") == []
    module_desk.run("catalog", "set", "openai", "gpt-4o", "--in-price", "7")
    wait_until(lambda: bool(lines_of(boss, "catalog.jsonl?own=1")))
    (own,) = lines_of(boss, "catalog.jsonl?own=1")
    assert (own["id"], own["in_price"], own["own"]) == ("gpt-4o", "7.00", True)


def listed(desk: Desk) -> str:
    return desk.run("catalog", "list", "--limit", "0", "--json")
