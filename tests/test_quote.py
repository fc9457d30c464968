"""How much is held: all of an answer that may hide some of its output, little of others."""

import json
from typing import Any

import msgspec
import pytest

from llmproxy.catalog import Model
from llmproxy.dialects.anthropic_messages import AnthropicMessages
from llmproxy.dialects.base import Endpoint
from llmproxy.dialects.gemini_contents import GENERATE, GeminiContents
from llmproxy.dialects.openai_chat import OpenAIChat
from llmproxy.dialects.openai_completions import OpenAICompletions
from llmproxy.dialects.openai_embeddings import OpenAIEmbeddings
from llmproxy.dialects.openai_responses import OpenAIResponses
from llmproxy.errors import ApiError
from llmproxy.ledger import Standing
from llmproxy.meters import Room
from llmproxy.money import format_usd
from llmproxy.pricing import Bound
from llmproxy.quote import (
    HoldPolicy,
    Quote,
    budget_exceeded,
    covered,
    fit,
    insufficient_credit,
    make_quote,
    with_counted_max,
)
from tests.support.books import PRICES

POLICY = HoldPolicy(stream_output_tokens=4096)
MOST = 64_000


def quoted(endpoint: Endpoint, *, thinks: bool = False, **fields: Any) -> Quote:  # noqa: ANN401
    body = json.dumps({"model": "m", "stream": True, **fields}).encode()
    model = Model("p", "m", (), "chat", PRICES, 1_000_000, 200_000, MOST, thinks)
    return make_quote(endpoint.read_request(body), model, 1_000_000, POLICY)


@pytest.mark.parametrize(
    ("endpoint", "fields"),
    [
        (OpenAIChat(), {}),
        (OpenAIChat(), {"reasoning_effort": "none"}),
        (OpenAIChat(), {"chat_template_kwargs": {"enable_thinking": False}}),
        (OpenAIChat(), {"enable_thinking": False}),
        (OpenAIResponses(), {}),
        (OpenAIResponses(), {"reasoning": {"effort": "none"}}),
        (OpenAICompletions(), {"prompt": "a", "n": 3}),
        (AnthropicMessages(), {}),
        (AnthropicMessages(), {"thinking": {"type": "disabled"}}),
    ],
)
def test_a_stream_that_shows_all_that_is_billed_holds_little_at_first(
    endpoint: Endpoint, fields: dict[str, Any]
) -> None:
    quote = quoted(endpoint, **fields)
    assert quote.grows
    assert quote.held_output_tokens == 4096
    assert quote.amount_nanousd == quote.cost_nanousd(4096) < quote.cost_nanousd(MOST)


@pytest.mark.parametrize(
    ("endpoint", "fields"),
    [
        (OpenAIChat(), {"stream": False}),
        (OpenAIChat(), {"reasoning_effort": "low"}),
        (OpenAIChat(), {"reasoning": {"enabled": True}}),
        (OpenAIChat(), {"thinking": {"type": "enabled"}}),
        (OpenAIChat(), {"enable_thinking": True}),
        (OpenAIChat(), {"chat_template_kwargs": {"thinking": True}}),
        (OpenAIChat(), {"prediction": {"type": "content", "content": "x"}}),
        (OpenAIResponses(), {"reasoning": {"effort": "low"}}),
        (OpenAICompletions(), {"prompt": "a", "best_of": 3}),
        (AnthropicMessages(), {"stream": False}),
        (AnthropicMessages(), {"thinking": {"type": "enabled", "budget_tokens": 1024}}),
        (AnthropicMessages(), {"thinking": {"type": "adaptive"}}),
    ],
)
def test_an_answer_that_may_hide_what_is_billed_is_held_in_full(
    endpoint: Endpoint, fields: dict[str, Any]
) -> None:
    quote = quoted(endpoint, **fields)
    assert not quote.grows
    assert quote.held_output_tokens == quote.output_tokens


@pytest.mark.parametrize(
    ("endpoint", "tool"),
    [
        (OpenAIResponses(), {"type": "web_search"}),
        (AnthropicMessages(), {"type": "web_search_20250305", "name": "web_search"}),
    ],
)
def test_searches_hide_what_is_billed(endpoint: Endpoint, tool: dict[str, Any]) -> None:
    body = json.dumps({"model": "m", "stream": True, "tools": [tool]}).encode()
    assert endpoint.read_request(body).hides_output


@pytest.mark.parametrize("endpoint", [OpenAIResponses(), AnthropicMessages()])
def test_so_does_the_compaction_of_a_long_context(endpoint: Endpoint) -> None:
    managed = [{"type": "compaction"}]
    body = json.dumps({"model": "m", "stream": True, "context_management": managed}).encode()
    assert endpoint.read_request(body).hides_output


def test_a_strict_server_refuses_what_only_the_provider_prices() -> None:
    prices = msgspec.structs.replace(PRICES, is_cost_from_provider=True)
    model = Model("p", "m", (), "chat", prices, 1_000_000, 200_000, MOST, reasoning=False)
    facts = OpenAIChat().read_request(b'{"model":"m"}')
    assert make_quote(facts, model, 1_000_000, POLICY).amount_nanousd > 0
    with pytest.raises(ApiError, match="what it costs"):
        make_quote(facts, model, 1_000_000, POLICY._replace(is_strict=True))


def test_a_strict_server_holds_every_stream_in_full() -> None:
    body = b'{"model":"m","stream":true}'
    model = Model("p", "m", (), "chat", PRICES, 1_000_000, 200_000, MOST, reasoning=False)
    policy = POLICY._replace(is_strict=True)
    quote = make_quote(OpenAIChat().read_request(body), model, 1_000_000, policy)
    assert (quote.held_output_tokens, quote.grows) == (MOST, False)


def test_a_model_that_thinks_is_held_in_full() -> None:
    assert not quoted(OpenAIChat(), thinks=True).grows


def test_a_short_answer_is_held_in_full_and_does_not_grow() -> None:
    quote = quoted(OpenAIChat(), max_tokens=4096)
    assert (quote.held_output_tokens, quote.grows) == (4096, False)


def test_a_fitted_stream_still_holds_little_at_first() -> None:
    whole = quoted(OpenAIChat())
    fitted = fit(whole, whole.cost_nanousd(10_000))
    assert fitted is not None
    assert (fitted.fitted_max, fitted.output_tokens, fitted.held_output_tokens) == (
        10_000,
        10_000,
        4096,
    )
    small = fit(whole, whole.cost_nanousd(1024))
    assert small is not None
    assert (small.held_output_tokens, small.grows) == (1024, False)
    assert fit(whole, whole.cost_nanousd(1024) - 1) is None


def test_what_an_amount_pays_for_is_the_inverse_of_the_cost() -> None:
    quote = quoted(OpenAIChat())
    for tokens in (0, 1, 5000, MOST):
        assert quote.affordable_output_tokens(quote.cost_nanousd(tokens)) == tokens
    assert quote.affordable_output_tokens(10**15) == MOST


@pytest.mark.parametrize(
    ("endpoint", "fields", "option"),
    [
        (OpenAIChat(), {"service_tier": "flex"}, 'service_tier "flex"'),
        (OpenAIResponses(), {"tools": [{"type": "web_search"}]}, "web search"),
    ],
)
def test_what_has_no_price_is_refused_by_name(
    endpoint: Endpoint, fields: dict[str, Any], option: str
) -> None:
    with pytest.raises(ApiError, match=f"{option} has no price for m ") as refusal:
        quoted(endpoint, **fields)
    assert (refusal.value.status, refusal.value.code) == (400, "option_not_metered")


def test_a_402_says_what_is_needed_what_there_is_and_how_much_would_fit() -> None:
    quote = quoted(OpenAIChat(), n=2)
    available = quote.cost_nanousd(2 * 700 + 1)
    error = insufficient_credit(quote, Standing(available + 10**9, 10**9))
    assert (error.status, error.code) == (402, "insufficient_credit")
    assert error.fields == {
        "needed_usd": format_usd(quote.amount_nanousd),
        "available_usd": format_usd(available),
        "held_usd": "1.00",
        "max_tokens_affordable": 700,
    }
    assert f"Needed {format_usd(quote.amount_nanousd)} USD" in error.message
    assert f"available {format_usd(available)} USD; max_tokens up to 700 would" in error.message


def test_a_402_says_when_not_even_a_token_would_fit() -> None:
    quote = quoted(OpenAIChat())
    error = insufficient_credit(quote, Standing(quote.cost_nanousd(1) - 1, 0))
    assert error.fields["max_tokens_affordable"] == 0
    assert "no max_tokens would fit" in error.message


def test_a_budget_that_does_not_cover_it_says_what_is_left_and_until_when() -> None:
    quote = quoted(OpenAIChat(), stream=False)
    left = quote.cost_nanousd(700)
    room = Room("monthly", left + 7 * 10**9, 5 * 10**9, 2 * 10**9, 1_796_083_200_000)
    error = budget_exceeded(quote, room)
    assert (error.status, error.code, error.should_retry) == (402, "budget_exceeded", False)
    assert error.fields == {
        "budget": "monthly",
        "needed_usd": format_usd(quote.amount_nanousd),
        "budget_usd": format_usd(left + 7 * 10**9),
        "spent_usd": "5.00",
        "held_usd": "2.00",
        "resets_at": "2026-12-01T00:00:00.000Z",
        "max_tokens_affordable": 700,
    }
    assert error.message == (
        "The monthly budget of this API key does not cover this request — lower max_tokens, or "
        f"wait until 2026-12-01T00:00Z. Needed {format_usd(quote.amount_nanousd)} USD, "
        f"{format_usd(left)} of {format_usd(left + 7 * 10**9)} USD left; "
        "max_tokens up to 700 would fit."
    )
    overspent = budget_exceeded(quote, room._replace(spent=9 * 10**9))
    assert overspent.fields["max_tokens_affordable"] == 0
    assert "USD, 0.00 of " in overspent.message


def test_an_amount_covers_a_quote_as_it_is_or_with_less_output() -> None:
    quote = quoted(OpenAIChat())
    # It sets no maximum: its longest answer is to be covered, though it holds little at first.
    assert covered(quote, quote.cost_nanousd(MOST)) is quote
    fitting = covered(quote, quote.cost_nanousd(MOST) - 1)
    assert fitting is not None
    assert fitting.fitted_max == MOST - 1
    assert covered(quote, quote.cost_nanousd(1023)) is None
    # Its own maximum stands as long as its first hold is covered.
    own = quoted(OpenAIChat(), max_tokens=MOST)
    assert covered(own, own.amount_nanousd) is own
    fitting = covered(own, own.amount_nanousd - 1)
    assert fitting is not None
    assert fitting.fitted_max == 4095
    assert covered(own, -1) is None


def test_every_choice_may_be_as_long_as_the_longest_and_a_prediction_comes_on_top() -> None:
    prediction = {"type": "content", "content": "x"}
    quote = quoted(OpenAIChat(), n=3, max_tokens=1000, prediction=prediction)
    extra = quote.facts.output_tokens_extra
    assert extra > 0
    assert quote.output_tokens == 3 * 1000 + extra
    fitted = fit(quote, quote.cost_nanousd(3 * 500 + 2 + extra))
    assert fitted is not None
    assert (fitted.fitted_max, fitted.output_tokens) == (500, 3 * 500 + extra)


def test_a_maximum_of_its_own_may_be_lowered_to_a_single_token() -> None:
    quote = quoted(OpenAIChat(), max_tokens=50)
    fitted = fit(quote, quote.cost_nanousd(1))
    assert fitted is not None
    assert (fitted.fitted_max, fitted.held_output_tokens) == (1, 1)
    assert fit(quote, quote.cost_nanousd(1) - 1) is None


def test_of_free_output_any_amount_pays_for_all() -> None:
    quote = msgspec.structs.replace(quoted(OpenAIChat()), bound=Bound(10**6, 0))
    assert quote.affordable_output_tokens(0) == MOST


def test_a_maximum_that_may_not_be_read_fits_up_to_itself() -> None:
    """No provider is said to read it, so it bounds no hold; but none larger is written in."""
    own = OpenAIChat(("max_tokens",))
    quote = quoted(own, max_completion_tokens=50)
    assert (quote.facts.output_max, quote.facts.unread_max, quote.output_tokens) == (None, 50, MOST)
    fitted = fit(quote, quote.cost_nanousd(1000))
    assert fitted is not None
    assert fitted.fitted_max == 50
    assert fit(quote, quote.cost_nanousd(49)) is None


@pytest.mark.parametrize(
    ("endpoint", "given", "written"),
    [
        (OpenAIChat(), {"max_completion_tokens": 50}, {"max_completion_tokens": 50}),
        (OpenAIChat(("max_tokens",)), {"max_completion_tokens": 50}, {"max_completion_tokens": 50}),
        (
            OpenAIChat(("max_tokens",), ("max_completion_tokens",)),
            {"max_completion_tokens": 50},
            {"max_completion_tokens": 50, "max_tokens": 50},
        ),
        (OpenAIChat(), {}, {}),
    ],
)
def test_the_maximum_that_counts_stands_where_the_provider_reads_it(
    endpoint: Endpoint, given: dict[str, Any], written: dict[str, Any]
) -> None:
    body = json.dumps({"model": "m", **given}).encode()
    sent = json.loads(with_counted_max(body, endpoint, quoted(endpoint, **given)))
    assert sent == {"model": "m", **written}


def test_a_fitted_maximum_is_written_in() -> None:
    endpoint = OpenAIChat()
    quote = quoted(endpoint)
    fitted = fit(quote, quote.cost_nanousd(5000))
    assert fitted is not None
    sent = json.loads(with_counted_max(b'{"model": "m"}', endpoint, fitted))
    assert sent == {"model": "m", endpoint.read_output_members[0]: 5000}


def test_a_maximum_that_fits_is_written_where_geminis_api_has_it() -> None:
    endpoint = GeminiContents(GENERATE, "m")
    body = b'{"contents":[{"parts":[{"text":"hi"}]}],"generationConfig":{"temperature":0}}'
    model = Model("p", "m", (), "chat", PRICES, 1_000_000, 200_000, MOST, reasoning=False)
    quote = make_quote(endpoint.read_request(body), model, 1_000_000, POLICY)
    fitted = fit(quote, quote.cost_nanousd(2000))
    assert fitted is not None
    assert fitted.fitted_max == 2000
    sent = json.loads(with_counted_max(body, endpoint, fitted))
    assert sent["generationConfig"] == {"temperature": 0, "maxOutputTokens": 2000}


def test_a_402_for_embeddings_advises_what_embeddings_have() -> None:
    facts = OpenAIEmbeddings().read_request(b'{"model":"m","input":"hi"}')
    quote = make_quote(facts, quoted(OpenAIChat()).model, 1_000_000, HoldPolicy())
    assert quote.output_tokens == 0
    needed = format_usd(quote.amount_nanousd)
    error = insufficient_credit(quote, Standing(10**9, 10**9 - 1))
    assert error.message == (
        "Insufficient credit balance — top up or send less input. "
        f"Needed {needed} USD, available 0.000000001 USD."
    )
    room = Room("monthly", 5, 4, 0, 1_796_083_200_000)
    assert " request — send less input, or wait until " in budget_exceeded(quote, room).message
    assert "max_tokens" not in budget_exceeded(quote, room).message
