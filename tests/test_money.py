"""Money as numbers: exact texts, one rounding upwards, and its inverse."""

from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxy import money
from llmproxy.errors import MoneyError

AMOUNTS = st.integers(-money.AMOUNT_NANOUSD_MAX, money.AMOUNT_NANOUSD_MAX)
MULTIPLIERS = st.integers(0, money.MULTIPLIER_MAX)
RATES = st.integers(0, money.RATE_MAX)


@pytest.mark.parametrize(
    ("text", "nanousd"),
    [
        ("5", 5_000_000_000),
        ("5.00", 5_000_000_000),
        (" 0.25 ", 250_000_000),
        ("-0.000000001", -1),
        (".5", 500_000_000),
        ("1000000000", 10**18),
    ],
)
def test_dollars_are_read_exactly(text: str, nanousd: int) -> None:
    assert money.parse_usd(text) == nanousd


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "-", ".", "five", "1e3", "1_000", "1,5", "+5", "--5", "5-", "1.2.3", "٣", "½"),
        *("NaN", "Infinity", "0x10", "0.0000000001", "1000000000.01", "9" * 41),
        # More digits than Decimal keeps by itself.
        "0.1" + "0" * 30 + "1",
    ],
)
def test_what_is_not_an_exact_amount_is_refused(text: str) -> None:
    with pytest.raises(MoneyError):
        money.parse_usd(text)


def test_a_number_may_have_40_characters() -> None:
    assert money.parse_usd("1".zfill(40)) == 10**9
    with pytest.raises(MoneyError):
        money.parse_usd("1".zfill(41))


@pytest.mark.parametrize(
    ("parse", "text", "said"),
    [
        (money.parse_usd, "five", "'five' is no amount; write a plain decimal such as 5.00."),
        (money.parse_rate, "five", "'five' is no price; write a plain decimal such as 2.50."),
        (money.parse_multiplier, "x", "'x' is no multiplier; write a plain decimal such as 1.2."),
        (
            money.parse_multiplier,
            "1.0000001",
            "1.0000001 is finer than 1/1000000, the smallest multiplier that can be kept exactly.",
        ),
        (money.parse_rate, "-1", "-1 is below zero, which no price can be."),
        (money.parse_multiplier, "1001", "1001 is larger than any multiplier can be."),
    ],
)
def test_a_refusal_says_what_is_wrong_with_the_text(
    parse: Callable[[str], int], text: str, said: str
) -> None:
    with pytest.raises(MoneyError) as refusal:
        parse(text)
    assert str(refusal.value) == said


def test_prices_and_multipliers_cannot_be_negative_or_absurd() -> None:
    for text in ("-1", "1000000.01"):
        with pytest.raises(MoneyError):
            money.parse_rate(text)
    for text in ("-1", "1000.1", "1.0000001"):
        with pytest.raises(MoneyError):
            money.parse_multiplier(text)
    assert money.parse_rate("0.000000001") == 1
    assert money.parse_multiplier("1.000001") == 1_000_001


def test_amounts_are_written_with_at_least_two_decimals_and_no_more_than_needed() -> None:
    written = {0: "0.00", 123_750: "0.00012375", -1_500_000_000: "-1.50", 1: "0.000000001"}
    assert {nanousd: money.format_usd(nanousd) for nanousd in written} == written


def test_multipliers_are_written_as_short_as_can_be() -> None:
    written = {0: "0", 1_000_000: "1", 1_200_000: "1.2", 1: "0.000001", 100_000_000: "100"}
    assert {micro: money.format_multiplier(micro) for micro in written} == written


def test_rates_are_written_as_amounts_are() -> None:
    assert money.format_rate(2_500_000_000) == "2.50"
    assert money.format_rate(75_000_000) == "0.075"


def test_display_rounds_half_to_even() -> None:
    assert money.display_usd(123_500) == "0.000124"
    assert money.display_usd(124_500) == "0.000124"
    assert money.display_usd(-5_000_000_000, 2) == "-5.00"


@given(AMOUNTS)
def test_a_written_amount_is_read_back_as_itself(nanousd: int) -> None:
    text = money.format_usd(nanousd)
    assert money.parse_usd(text) == nanousd
    assert Decimal(text) * money.NANOUSD_PER_USD == nanousd


@given(MULTIPLIERS)
def test_a_written_multiplier_is_read_back_as_itself(micro: int) -> None:
    assert money.parse_multiplier(money.format_multiplier(micro)) == micro


@given(st.text(max_size=45))
def test_any_text_is_either_exact_or_refused(text: str) -> None:
    try:
        nanousd = money.parse_usd(text)
    except MoneyError:
        return
    assert Fraction(text.strip()) * money.NANOUSD_PER_USD == nanousd


@given(st.integers(0, 10**24), MULTIPLIERS, MULTIPLIERS)
def test_a_cost_is_rounded_up_by_less_than_a_nano_dollar(rated: int, user: int, model: int) -> None:
    exact = Fraction(rated, 10**6) * Fraction(user, 10**6) * Fraction(model, 10**6)
    assert 0 <= money.cost_nanousd(rated, user, model) - exact < 1


@given(st.integers(-(10**12), 10**15), RATES, MULTIPLIERS, MULTIPLIERS, st.integers(0, 10**20))
def test_the_affordable_tokens_are_the_most_that_fit(
    available: int, rate: int, user: int, model: int, besides: int
) -> None:
    tokens = money.affordable_tokens(available, rate, user, model, besides=besides)
    if tokens is None:
        assert rate * user * model == 0
        return
    assert money.cost_nanousd(besides + (tokens + 1) * rate, user, model) > available
    if tokens:
        assert money.cost_nanousd(besides + tokens * rate, user, model) <= available


def test_what_is_free_or_not_paid_for_is_told_apart() -> None:
    one = money.MULTIPLIER_ONE
    assert money.affordable_tokens(7, 10**6, one, one) == 7
    assert money.affordable_tokens(0, 1, 1, 1) == 0
    assert money.affordable_tokens(-1, 1, 1, 1) == 0
    assert money.affordable_tokens(0, 0, one, one) is None


def test_a_point_is_moved_exactly_however_many_digits_there_are() -> None:
    assert money.exact_decimal(0, 9) == "0.00"
    assert money.exact_decimal(12, 5) == "0.00012"
    assert money.exact_decimal(2_500_000_000, 9) == "2.50"
    digits = "123456789" * 5
    assert money.exact_decimal(int(digits), 40) == f"{digits[:5]}.{digits[5:]}"


def test_a_rate_is_multiplied_exactly() -> None:
    rate = money.parse_usd("0.075")
    assert money.format_rate_times(rate) == "0.075"
    assert money.format_rate_times(rate, 1_200_000) == "0.09"
    product = Decimal("0.075") * Decimal("1.070001") * Decimal("0.333333")
    assert money.format_rate_times(rate, 1_070_001, 333_333) == f"{product:f}".rstrip("0")
