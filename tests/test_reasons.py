"""Every row says why it cost what it did."""

import itertools

import pytest

from llmproxy.reports.reasons import why


def said(
    state: str,
    basis: str,
    stored: str | None = None,
    *,
    hold: int = 10**9,
    cost: int = 0,
    shortfall: int = 0,
) -> str:
    return why(
        state=state,
        basis=basis,
        stored=stored,
        hold_nanousd=hold,
        cost_nanousd=cost,
        shortfall_nanousd=shortfall,
    )


@pytest.mark.parametrize(
    ("state", "basis", "text"),
    [
        ("open", "none", "it is still running"),
        ("settled", "usage", "the provider reported this usage"),
        ("settled", "estimate", "the provider reported no usage: estimated by what was seen"),
        ("settled", "hold", "what was generated could not be seen: the whole hold"),
        ("settled", "none", "it is free of charge"),
        ("released", "none", "nothing was generated"),
        ("expired", "estimate", "the proxy stopped while this request ran"),
        ("refused", "none", "it was refused"),
    ],
)
def test_a_row_without_a_stored_reason_has_one_by_its_columns(
    state: str, basis: str, text: str
) -> None:
    assert said(state, basis) == text
    assert said(state, basis, "the client left") == "the client left"


def test_no_state_or_basis_that_the_tables_allow_is_without_a_reason() -> None:
    states = ("open", "settled", "released", "expired", "refused")
    for state, basis in itertools.product(states, ("usage", "estimate", "hold", "none")):
        assert said(state, basis)


def test_a_cost_above_the_hold_is_told_with_what_could_not_be_paid() -> None:
    flag = "it cost more than the 1.00 USD that were held"
    assert said("settled", "usage", cost=10**9) == "the provider reported this usage"
    above = said("settled", "usage", cost=10**9 + 1)
    assert above == f"the provider reported this usage; {flag}"
    short = said("settled", "estimate", "broke off", cost=3 * 10**9, shortfall=5 * 10**8)
    assert short == f"broke off; {flag}, and 0.50 USD of that could not be paid"
    assert flag in said("expired", "estimate", "killed", cost=2 * 10**9)
    assert said("open", "none", cost=2 * 10**9) == "it is still running"
