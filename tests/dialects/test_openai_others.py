"""Legacy completions, embeddings and what is free: requests and answers."""

import json
from typing import Any

import pytest

from llmproxy.dialects.base import Endpoint, InputFacts, Reading
from llmproxy.dialects.openai_completions import OpenAICompletions
from llmproxy.dialects.openai_embeddings import OpenAIEmbeddings
from llmproxy.errors import ApiError
from llmproxy.presets import PRESETS
from llmproxy.routes import endpoints_of
from llmproxy.usage import Leg
from tests.support.answers import data_event
from tests.support.reading import refusal_of

COMPLETIONS = OpenAICompletions()
EMBEDDINGS = OpenAIEmbeddings()


def encode(**fields: object) -> bytes:
    return json.dumps({"model": "m", **fields}, separators=(",", ":")).encode()


def refusal(endpoint: Endpoint, **fields: object) -> ApiError:
    return refusal_of(endpoint, encode(**fields))


# --- legacy completions ---


@pytest.mark.parametrize(
    ("fields", "choices"),
    [
        ({"prompt": "x"}, 1),
        ({"prompt": ["x", "y", "z"]}, 3),
        ({"prompt": [1, 2, 3]}, 1),
        ({"prompt": [[1, 2], [3]]}, 2),
        ({"prompt": []}, 1),
        ({"prompt": ["x", "y"], "n": 3}, 6),
        ({"prompt": ["x", "y"], "n": 3, "best_of": 5}, 10),
        ({"prompt": "x", "n": 3, "best_of": None}, 3),
        ({}, 1),
    ],
)
def test_every_answer_to_every_prompt_counts(fields: dict[str, Any], choices: int) -> None:
    assert COMPLETIONS.read_request(encode(**fields)).choices == choices


def test_a_completion_request_is_read() -> None:
    facts = COMPLETIONS.read_request(encode(prompt="x", max_tokens=9, stream=True))
    assert (facts.model, facts.output_max, facts.is_stream) == ("m", 9, True)
    # Other servers than OpenAI's have no small default.
    assert COMPLETIONS.read_request(encode(prompt="x")).output_max is None
    assert refusal(COMPLETIONS, prompt="x", best_of=0).param == "best_of"


def test_token_ids_are_told_from_texts() -> None:
    for endpoint, name in ((COMPLETIONS, "prompt"), (EMBEDDINGS, "input")):
        for given in ([1] * 3000, [[1] * 1500] * 2):
            body = encode(**{name: given})
            assert endpoint.read_request(body).input == InputFacts(len(body), has_token_ids=True)
        texts = encode(**{name: ["a", "b"]})
        assert endpoint.read_request(texts).input == InputFacts(len(texts))


def test_usage_is_asked_for_in_a_completion_stream() -> None:
    body = encode(prompt="x", stream=True)
    facts = COMPLETIONS.read_request(body)
    sent = COMPLETIONS.upstream_body(body, facts, injects_usage=True)
    assert json.loads(sent)["stream_options"] == {"include_usage": True}
    assert COMPLETIONS.upstream_body(body, facts, injects_usage=False) == body


def test_a_completion_stream_is_read_and_its_usage_chunk_withheld() -> None:
    def chunk(text: str, reason: str | None = None) -> bytes:
        return data_event({"choices": [{"index": 0, "text": text, "finish_reason": reason}]})

    usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    events = [chunk("Hel"), chunk("lo"), chunk("", "stop")]
    reader = COMPLETIONS.stream_reader(withholds_usage=True)
    passed = b"".join(reader.events.feed(event) for event in events)
    assert reader.reading() == Reading(seen_bytes=5)
    assert reader.is_complete
    assert reader.events.feed(data_event({"choices": [], "usage": usage})) == b""
    assert passed == b"".join(events)
    assert reader.reading().usage is not None


# --- embeddings ---


def embedded(usage: object) -> Reading:
    body = {"object": "list", "model": "e", "data": [{"embedding": [0.5]}], "usage": usage}
    return EMBEDDINGS.read_answer(json.dumps(body).encode())


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": 8, "total_tokens": 8},
        {"total_tokens": 8},  # Voyage
        {"prompt_tokens": 8},
        # Cohere, which bills by what stands apart, if that is tokens
        {"billed_units": {"input_tokens": 8}, "prompt_tokens": 9, "total_tokens": 9},
        {"billed_units": {"input_tokens": 8.0, "output_tokens": 3}},
        {"billed_units": {"images": 1}, "prompt_tokens": 8, "total_tokens": 8},
    ],
)
def test_all_tokens_of_an_embedding_are_input(usage: object) -> None:
    reading = embedded(usage)
    assert reading.usage is not None
    assert (reading.usage.legs, reading.is_final) == ((Leg(input=8),), True)


@pytest.mark.parametrize("usage", [None, {}, {"total_tokens": 0}, {"prompt_tokens": -1}])
def test_an_embedding_without_honest_usage_is_estimated(usage: object) -> None:
    reading = embedded(usage)
    assert not reading.is_final
    assert reading.seen_bytes > 0


def test_an_embedding_request_has_no_output() -> None:
    facts = EMBEDDINGS.read_request(encode(input="x", encoding_format="base64"))
    assert (facts.output_max, facts.is_stream, facts.may_write_cache) == (0, False, False)
    assert "only text" in refusal(EMBEDDINGS, input=[{"image": "x"}]).message
    assert "one piece" in refusal(EMBEDDINGS, input="x", stream=True).message


# --- free ---

FREE = {
    endpoint.name: endpoint
    for dialect in ("openai", "anthropic")
    for endpoint in endpoints_of(dialect, dialect)
    if endpoint.is_free
}


def test_what_is_free() -> None:
    assert sorted(FREE) == ["messages/count_tokens", "moderations", "responses/input_tokens"]
    facts = FREE["moderations"].read_request(b'{"input":"x"}')
    assert (facts.model, facts.input, facts.output_max) == ("", InputFacts(0), 0)


@pytest.mark.parametrize("provider", [*sorted(PRESETS.keys() - {"anthropic"}), "azure", "own"])
def test_moderations_are_free_only_where_the_provider_says_so(provider: str) -> None:
    dialect = PRESETS[provider].dialect if provider in PRESETS else "openai"
    (found,) = [one for one in endpoints_of(provider, dialect) if one.name == "moderations"]
    assert found.is_free == (provider == "openai")


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("responses/input_tokens", {"conversation": "conv_1"}),
        ("responses/input_tokens", {"prompt": {"id": "pmpt_1"}}),
        ("responses/input_tokens", {"input": [{"id": "msg_1"}]}),
        ("responses/input_tokens", {"input": [{"type": "item_reference", "id": "x"}]}),
        ("responses/input_tokens", {"input": [{"content": [{"file_id": "x"}]}]}),
        ("messages/count_tokens", {"messages": [{"content": [{"source": {"file_id": "x"}}]}]}),
        ("messages/count_tokens", {"container": "c"}),
    ],
)
def test_what_is_kept_in_the_operators_account_is_refused_there_too(
    name: str, fields: dict[str, Any]
) -> None:
    assert refusal(FREE[name], **fields).code == "option_not_metered"


def test_a_stream_that_nobody_asked_for_is_counted() -> None:
    for endpoint in (EMBEDDINGS, FREE["moderations"]):
        reader = endpoint.stream_reader(withholds_usage=True)
        assert reader.events.feed(b"data: abc\n\n") == b"data: abc\n\n"
        assert reader.is_complete
        assert (reader.reading().seen_bytes, reader.reading().is_final) == (3, False)
