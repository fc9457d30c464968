"""The proof of the books prices again what another model than the asked one has answered."""

from pathlib import Path

import msgspec
import pytest

from llmproxy import ledger, ledger_check
from llmproxy.catalog import Prices, Rates
from llmproxy.clock import request_id_text
from llmproxy.money import parse_rate
from llmproxy.pricing import Line, PricedModel, price
from llmproxy.storage.database import connect, transaction
from llmproxy.usage import Leg, Usage
from tests.support.books import NOW_MS, PRICES, Book

OTHER_PRICES = Prices(Rates(*(parse_rate("7") for _ in Rates.__struct_fields__[:5])))


def settle_with_another_models_leg(book: Book, *, is_pinned: bool) -> ledger.Hold:
    """An answer of two models, such as one of Anthropic's with a fallback."""
    hold = book.placed("1")
    usage = Usage((Leg(input=100), Leg(input=10, output=20, model="gpt-other")))
    with book.write() as tx:
        version = ledger.pin_prices(
            tx, "openai", "gpt-other", OTHER_PRICES.canonical_json(), now_ms=NOW_MS
        )
        other = PricedModel("gpt-other", OTHER_PRICES, version if is_pinned else None)
        cost = price(
            usage,
            PricedModel("gpt-test", PRICES, book.price_version),
            user_multiplier_micro=hold.user_multiplier_micro,
            model_multiplier_micro=hold.model_multiplier_micro,
            other_model=lambda _: other,
        )
        end = ledger.End("settled", "usage", cost.nanousd, book.outcome(usage, cost), NOW_MS)
        ledger.end_hold(tx, hold, end)
    return hold


@pytest.mark.parametrize("is_pinned", [True, False])
def test_another_models_leg_is_priced_again_where_its_line_pins_its_prices(
    tmp_path: Path, is_pinned: bool
) -> None:
    book = Book(tmp_path / "data" / "llmproxy.db")
    hold = settle_with_another_models_leg(book, is_pinned=is_pinned)
    book.close()
    with_damage = connect(book.path)
    with transaction(with_damage) as tx:
        report = ledger_check.verify(tx)
    assert report.problems == []
    assert report.checked.get("usages_repriced", 0) == is_pinned
    # 19 tokens fewer of the other model's output: the receipt still sums to what was charged.
    with_damage.execute(
        """UPDATE requests SET usage = replace(usage, '"output":20', '"output":1')"""
    )
    with transaction(with_damage) as tx:
        problems = ledger_check.verify(tx).problems
    with_damage.close()
    *of_hold, of_day = problems
    assert of_day.message == "are not those of its requests: output by 19"
    assert len(of_hold) == is_pinned
    for problem in of_hold:
        assert problem.row == f"hold {request_id_text(hold.id)}"
        assert "but its usage prices to" in problem.message


def receipt_of(book: Book, hold: ledger.Hold) -> list[Line]:
    with book.read() as tx:
        (receipt,) = tx.execute("SELECT receipt FROM requests WHERE id = ?", (hold.id,)).fetchone()
    return msgspec.json.decode(receipt, type=list[Line])


def settle_unpinned(book: Book, prices: Prices) -> ledger.Hold:
    """An end as the proxy makes it, kept in a file for a while as where the disk was full."""
    hold = book.placed("1")
    usage = Usage((Leg(input=100), Leg(input=10, output=20, model="unknown")))
    cost = price(
        usage,
        PricedModel("gpt-test", PRICES, book.price_version),
        user_multiplier_micro=hold.user_multiplier_micro,
        model_multiplier_micro=hold.model_multiplier_micro,
        other_model=lambda name: PricedModel(name, prices, None),
    )
    unpinned = ledger.Unpinned("unknown", "gpt-dear", prices.canonical_json().decode())
    outcome = book.outcome(usage, cost)
    end = ledger.End(
        "settled", "usage", cost.nanousd, outcome, NOW_MS, kept=None, unpinned=(unpinned,)
    )
    kept = msgspec.json.decode(msgspec.json.encode(end), type=ledger.End)
    with book.write() as tx:
        ledger.end_hold(tx, hold, kept)
    return hold


def test_prices_that_are_known_at_the_end_only_are_pinned_with_it(tmp_path: Path) -> None:
    book = Book(tmp_path / "data" / "llmproxy.db")
    dearer = Prices(Rates(*(parse_rate("8") for _ in Rates.__struct_fields__[:5])))
    holds = [settle_unpinned(book, each) for each in (OTHER_PRICES, OTHER_PRICES, dearer)]
    receipts = [receipt_of(book, hold) for hold in holds]
    with book.read() as tx:
        stored = dict(tx.execute("SELECT id, prices FROM price_versions WHERE model = 'gpt-dear'"))
        report = ledger_check.verify(tx)
    book.close()
    assert len(stored) == 2
    for lines, prices in zip(receipts, (OTHER_PRICES, OTHER_PRICES, dearer), strict=True):
        asked, *others = [(line.model, line.price_version) for line in lines]
        assert asked == ("gpt-test", book.price_version)
        assert {model for model, _ in others} == {"unknown"}
        assert {stored[version] for _, version in others} == {prices.canonical_json().decode()}
    assert report.problems == []
    assert report.checked["usages_repriced"] == 3


@pytest.mark.parametrize(
    ("leg", "is_pinned"),
    [
        (Leg(model="nothing"), False),  # it has no line, so it needs no price
        (Leg(output=20, model="gpt-test-2026"), True),  # another name of the asked model
    ],
)
def test_a_leg_of_nothing_and_another_name_are_priced_again_too(
    tmp_path: Path, leg: Leg, is_pinned: bool
) -> None:
    book = Book(tmp_path / "data" / "llmproxy.db")
    hold = book.placed("1")
    usage = Usage((Leg(input=100), leg))
    version = book.price_version if is_pinned else None
    cost = price(
        usage,
        PricedModel("gpt-test", PRICES, book.price_version),
        user_multiplier_micro=hold.user_multiplier_micro,
        model_multiplier_micro=hold.model_multiplier_micro,
        other_model=lambda name: PricedModel(name, PRICES, version),
    )
    with book.write() as tx:
        end = ledger.End("settled", "usage", cost.nanousd, book.outcome(usage, cost), NOW_MS)
        ledger.end_hold(tx, hold, end)
    with book.read() as tx:
        report = ledger_check.verify(tx)
    book.close()
    assert (report.problems, report.checked["usages_repriced"]) == ([], 1)
