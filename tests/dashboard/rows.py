"""Requests as a user's past has left them, written by the ledger's own functions."""

from collections.abc import Mapping

import msgspec

from llmproxy import accounts, ledger
from llmproxy.catalog import Prices, Rates
from llmproxy.clock import Clock, RequestIds, request_id_text
from llmproxy.money import MULTIPLIER_ONE, parse_rate
from llmproxy.pricing import PricedModel, price
from llmproxy.unheld import unsent
from llmproxy.usage import Leg, Usage
from tests.service.helpers import Books

PRICES = Prices(
    Rates(
        input=parse_rate("2.50"),
        output=parse_rate("10"),
        cache_read=parse_rate("1.25"),
        cache_write_5m=parse_rate("3"),
        cache_write_1h=parse_rate("5"),
    )
)


def principal(books: Books, name: str, key: str = "test") -> accounts.Principal:
    """The user's own key of that name."""
    now_ms = Clock().now_ms()
    with books.database.read() as tx:
        everybody = accounts.load_principals(tx, now_ms=now_ms, ended_for_ms=0)
    found = [each for each in everybody.values() if (each.user, each.api_key) == (name, key)]
    assert len(found) == 1, found
    return found[0]


def add_refused(
    books: Books, name: str, count: int, *, at_ms: int, apart_ms: int = 1000, **fields: str
) -> list[str]:
    """Leave rows of refused requests, the first one at a time; return their ids, oldest first."""
    who = principal(books, name, fields.get("key", "test"))
    outcome = unsent(
        who,
        fields.get("provider", "openai"),
        fields.get("model", "gpt-4o"),
        status=400,
        reason=fields.get("reason", "It was refused."),
    )
    ids, made = RequestIds(), []
    with books.write() as tx:
        for number in range(count):
            came_ms = at_ms + number * apart_ms
            made.append(ids.new(came_ms))
            ledger.record_unheld(
                tx,
                made[-1],
                api_key_id=who.api_key_id,
                endpoint="chat/completions",
                outcome=outcome,
                now_ms=came_ms,
            )
    return [request_id_text(each) for each in made]


def add_settled(
    books: Books,
    name: str,
    *,
    at_ms: int,
    model: str = "gpt-old",
    held_nanousd: int = 20_000_000,
    outcome: Mapping[str, object] = {},
) -> str:
    """Leave a request of 1,200 input, 800 cached and 350 output tokens; return its id."""
    who = principal(books, name)
    usage = Usage((Leg(input=1200, cache_read=800, output=350),))
    with books.write() as tx:
        version = ledger.pin_prices(tx, "openai", model, PRICES.canonical_json(), now_ms=at_ms)
        cost = price(
            usage,
            PricedModel(model, PRICES, version),
            user_multiplier_micro=who.rate_multiplier_micro,
            model_multiplier_micro=MULTIPLIER_ONE,
        )
        hold = ledger.Hold(
            id=RequestIds().new(at_ms),
            wallet_id=who.wallet_id,
            api_key_id=who.api_key_id,
            price_version_id=version,
            boot_id=tx.execute("SELECT max(id) FROM boots").fetchone()[0],
            endpoint="chat/completions",
            user_multiplier_micro=who.rate_multiplier_micro,
            model_multiplier_micro=MULTIPLIER_ONE,
            amount_nanousd=held_nanousd,
            created_at_ms=at_ms,
        )
        assert ledger.place_hold(tx, hold) is None
        told = ledger.Outcome(
            user_id=who.user_id,
            provider="openai",
            model=model,
            is_stream=True,
            status=200,
            duration_ms=1234,
            usage=msgspec.json.encode(usage).decode(),
            receipt=msgspec.json.encode(cost.lines).decode(),
            upstream_status=200,
            attempts=2,
            ttfb_ms=210,
        )
        told = msgspec.structs.replace(told, **outcome)
        end = ledger.End("settled", "usage", cost.nanousd, told, at_ms + 1234)
        ledger.end_hold(tx, hold, end)
    return request_id_text(hold.id)
