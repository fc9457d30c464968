"""How much input a request is held for: by default, and on a strict server."""

import json
from typing import Any

import msgspec
import pytest

from llmproxy.catalog import Model, Prices, Rates, Tier, Variant
from llmproxy.dialects.anthropic_messages import AnthropicMessages
from llmproxy.dialects.base import Endpoint, InputFacts, RequestFacts, StoredContext
from llmproxy.dialects.openai_chat import OpenAIChat
from llmproxy.dialects.openai_embeddings import OpenAIEmbeddings
from llmproxy.dialects.openai_responses import OpenAIResponses
from llmproxy.errors import ApiError
from llmproxy.input_bound import input_bound, input_estimate
from llmproxy.money import MULTIPLIER_ONE
from llmproxy.quote import OUTPUT_TOKENS_MAX_DEFAULT, HoldPolicy, Quote, make_quote
from llmproxy.usage import Movers

RATES = Rates(10, 20, 1, 12, 15, web_search=5)
MODEL = Model(
    provider="p",
    id="m",
    aliases=(),
    mode="chat",
    prices=Prices(RATES),
    multiplier_micro=MULTIPLIER_ONE,
    max_input_tokens=200_000,
    max_output_tokens=8000,
    reasoning=False,
)
WINDOWLESS = msgspec.structs.replace(MODEL, max_input_tokens=None)
ENDLESS = msgspec.structs.replace(MODEL, max_output_tokens=None)
STRICT = HoldPolicy(is_strict=True)


def facts(given: InputFacts, *, output_max: int | None = 9, searches: int = 0) -> RequestFacts:
    return RequestFacts(
        model="m",
        is_stream=False,
        output_max=output_max,
        choices=1,
        input=given,
        movers=Movers(),
        may_write_cache=False,
        searches=searches,
    )


def held(given: InputFacts, *, is_strict: bool = False, model: Model = MODEL) -> int:
    return input_bound(facts(given), model, is_strict=is_strict)


# --- the default ---


def test_by_default_each_kind_of_input_has_its_flat_amount() -> None:
    assert held(InputFacts(3000)) == 1600
    assert held(InputFacts(3000, has_tools=True)) == 2600
    assert held(InputFacts(3000, has_token_ids=True)) == 2100
    assert held(InputFacts(3000, media=2)) == 1600 + 2 * 6000
    assert held(InputFacts(3000, pdf_pages=7)) == 1600 + 7 * 3000
    searching = facts(InputFacts(3000, rereads="tools: web_search"), searches=10)
    assert input_bound(searching, MODEL, is_strict=False) == 1600 + 10 * 20_000


def test_what_is_read_again_of_an_earlier_response_is_held_and_estimated_in_full() -> None:
    given = InputFacts(3000, stored=StoredContext(5000, "m"))
    assert held(given) == 1600 + 5000
    assert held(given, is_strict=True) == 3000 + 1600 + 5000
    assert input_estimate(given) == 1000 + 5000


def test_reasoning_that_is_only_named_has_an_amount_strictly_all_that_the_model_takes() -> None:
    named = {"type": "reasoning", "id": "rs_1", "summary": []}
    for item, bound in (
        (named, 200_000),
        ({**named, "encrypted_content": None}, 200_000),
        ({**named, "encrypted_content": "x" * 9}, None),
        ({**named, "content": [{}]}, 200_000),
        ({**named, "content": [{"type": "reasoning_text", "text": "so"}]}, None),
    ):
        body = json.dumps({"model": "m", "max_output_tokens": 9, "input": [item]}).encode()
        read = OpenAIResponses().read_request(body)
        assert input_bound(read, MODEL, is_strict=True) == (bound or len(body) + 1600)
        amount = 25_000 if bound else 0
        assert input_bound(read, MODEL, is_strict=False) == len(body) // 3 + 600 + amount


def test_ten_of_them_are_no_more_than_the_model_takes() -> None:
    items = [{"type": "reasoning", "id": f"rs_{number}", "summary": []} for number in range(10)]
    body = json.dumps({"model": "m", "max_output_tokens": 9, "input": items}).encode()
    read = OpenAIResponses().read_request(body)
    assert input_bound(read, MODEL, is_strict=False) == len(body) // 3 + 600 + 200_000
    assert input_bound(read, WINDOWLESS, is_strict=False) == len(body) // 3 + 600 + 250_000


def test_strictly_another_models_count_of_it_says_nothing() -> None:
    given = InputFacts(3000, stored=StoredContext(5000, "another"))
    assert held(given) == 1600 + 5000
    assert held(given, is_strict=True) == 200_000
    with pytest.raises(ApiError, match="what another model has answered"):
        held(given, is_strict=True, model=WINDOWLESS)


def test_a_maximum_that_is_advised_has_room_in_the_bound() -> None:
    for is_strict, more in ((False, 16), (True, 48)):
        without = facts(InputFacts(3000), output_max=None)
        assert (
            input_bound(without, MODEL, is_strict=is_strict)
            == held(InputFacts(3000), is_strict=is_strict) + more
        )


def test_an_image_of_a_megabyte_is_held_as_an_image() -> None:
    url = "data:image/jpeg;base64," + "A" * 1_000_000
    content = [{"type": "image_url", "image_url": {"url": url}}]
    body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": content}]}
    read = OpenAIChat().read_request(json.dumps(body).encode())
    assert 6600 < input_bound(read, MODEL, is_strict=False) < 6700


def test_the_estimate_counts_media_as_the_hold_does_and_nothing_around_the_text() -> None:
    assert input_estimate(InputFacts(100)) == 34
    assert input_estimate(InputFacts(100, has_tools=True, media=2, pdf_pages=3)) == 34 + 21_000


# --- strict ---


def test_on_a_strict_server_text_counts_by_its_bytes() -> None:
    assert held(InputFacts(3000), is_strict=True) == 4600
    assert held(InputFacts(3000, has_tools=True), is_strict=True) == 5600
    assert held(InputFacts(3000, has_token_ids=True), is_strict=True) == 4600
    assert held(InputFacts(300_000), is_strict=True) == 301_600


def test_every_token_id_has_a_byte_on_a_strict_server() -> None:
    for given in ([1] * 3000, [[7] * 1500, [8] * 1500]):
        body = json.dumps({"model": "m", "input": given}, separators=(",", ":")).encode()
        read = OpenAIEmbeddings().read_request(body)
        assert input_bound(read, MODEL, is_strict=True) >= 3000 + 1600


def test_on_a_strict_server_media_are_held_as_all_that_the_model_takes() -> None:
    for given in (InputFacts(100, media=1), InputFacts(100, pdf_pages=1)):
        assert held(given, is_strict=True) == 200_000
    assert held(InputFacts(300_000, media=1), is_strict=True) == 301_600


def refusal(given: RequestFacts, model: Model) -> ApiError:
    with pytest.raises(ApiError) as caught:
        make_quote(given, model, MULTIPLIER_ONE, STRICT)
    error = caught.value
    assert (error.status, error.code) == (400, "option_not_metered")
    assert error.message.startswith("This server is strict: ")
    return error


def test_a_strict_server_refuses_media_where_the_catalog_knows_no_window() -> None:
    assert held(InputFacts(100), is_strict=True, model=WINDOWLESS) == 1700
    error = refusal(facts(InputFacts(100, media=1)), WINDOWLESS)
    assert (
        "how much input m takes, and it does not. Send the request with text only" in error.message
    )


@pytest.mark.parametrize(
    ("endpoint", "fields", "option"),
    [
        (AnthropicMessages(), {"tools": [{"type": "web_search_20250305"}]}, "tools: web_search"),
        (OpenAIResponses(), {"tools": [{"type": "web_search"}]}, "tools: web_search"),
        (
            AnthropicMessages(),
            {"context_management": {"edits": [{"type": "compact_20260112"}]}},
            "context_management",
        ),
        (OpenAIResponses(), {"context_management": [{"type": "compaction"}]}, "context_management"),
    ],
)
def test_a_strict_server_refuses_what_reads_the_input_again(
    endpoint: Endpoint, fields: dict[str, Any], option: str
) -> None:
    read = endpoint.read_request(json.dumps({"model": "m", **fields}).encode())
    make_quote(read, MODEL, MULTIPLIER_ONE, HoldPolicy())
    error = refusal(read, MODEL)
    assert error.param == option
    assert f"`{option}`" in error.message
    assert "Send the request without it." in error.message


# --- the output's bound, and what its price may be ---


def quoted(output_max: int | None, model: Model, policy: HoldPolicy = STRICT) -> Quote:
    return make_quote(facts(InputFacts(0), output_max=output_max), model, MULTIPLIER_ONE, policy)


def test_the_output_is_bounded_by_the_request_and_the_model() -> None:
    assert quoted(9000, MODEL).output_tokens == 8000
    assert quoted(70, MODEL).output_tokens == 70
    assert quoted(None, MODEL).output_tokens == 8000


def test_a_maximum_counts_in_full_where_the_catalog_knows_none() -> None:
    assert quoted(500_000, ENDLESS).output_tokens == 500_000
    assert quoted(0, ENDLESS).output_tokens == 0
    assert quoted(None, ENDLESS, HoldPolicy()).output_tokens == OUTPUT_TOKENS_MAX_DEFAULT


def test_a_strict_server_refuses_an_output_that_nothing_bounds() -> None:
    error = refusal(facts(InputFacts(0), output_max=None), ENDLESS)
    assert "says how much m may answer. Set a maximum of output tokens" in error.message


def test_the_window_counts_at_the_price_of_long_contexts() -> None:
    long = msgspec.structs.replace(RATES, input=50)
    model = msgspec.structs.replace(MODEL, prices=Prices(RATES, (Tier(150_000, long),)))
    quote = make_quote(facts(InputFacts(10, media=1)), model, MULTIPLIER_ONE, STRICT)
    assert quote.bound.input_rated == 200_000 * 50


def test_only_a_strict_server_holds_what_the_accounts_own_settings_could_make_of_it() -> None:
    dear = msgspec.structs.replace(RATES, output=70)
    prices = Prices(
        RATES, variants=(Variant(("priority",), (), dear),), geo_micro={"us": 1_100_000}
    )
    model = msgspec.structs.replace(MODEL, prices=prices)
    assert quoted(10, model, HoldPolicy()).bound.output_rate == 20
    assert quoted(10, model).bound.output_rate == 77


@pytest.mark.parametrize(
    ("allowed", "rate"),
    [
        ({}, 10),
        ({"may_write_cache": True}, 12),
        ({"may_write_cache": True, "may_write_cache_1h": True}, 15),
    ],
)
def test_a_quote_counts_the_cache_writes_and_searches_that_the_request_allows(
    allowed: dict[str, bool], rate: int
) -> None:
    given = msgspec.structs.replace(facts(InputFacts(3000), searches=2), **allowed)
    quote = make_quote(given, MODEL, MULTIPLIER_ONE, HoldPolicy())
    assert quote.input_tokens == held(InputFacts(3000)) + 2 * 20_000
    assert quote.bound.input_rated == quote.input_tokens * rate + 2 * 5 * 1000
