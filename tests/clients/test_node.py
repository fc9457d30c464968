"""Node: openai, @anthropic-ai/sdk, and the Vercel AI SDK with three of its providers."""

import pytest

from tests.clients.checks import (
    MESSAGES,
    STATUSES,
    WEATHER,
    assert_books_are_exact,
    assert_refused,
    assert_tried_again,
)
from tests.clients.conftest import Ran, Runner

AI_MODELS = ("responses", "chat", "compatible", "anthropic")


@pytest.fixture(scope="module")
def openai(node_runner: Runner) -> Ran:
    return node_runner.node("openai")


@pytest.fixture(scope="module")
def anthropic(node_runner: Runner) -> Ran:
    return node_runner.node("anthropic")


@pytest.fixture(scope="module")
def ai(node_runner: Runner) -> Ran:
    return node_runner.node("ai_sdk")


def test_openai_answers_plain_and_streamed(openai: Ran) -> None:
    text, total_tokens = openai.got("plain")
    assert total_tokens == 6 + -(-len(text) // 4)
    assert openai.got("streamed") == text
    assert openai.got("response") == [text, -(-len(text) // 4)]
    assert openai.got("response_streamed") == text
    assert openai.got("embeddings") == [2, 1536, 2]


def test_openai_calls_tools(openai: Ran) -> None:
    assert openai.got("tool") == openai.got("response_tool") == WEATHER


def test_anthropic_answers_plain_and_streamed(anthropic: Ran) -> None:
    text, output_tokens = anthropic.got("plain")
    assert output_tokens == -(-len(text) // 4)
    assert anthropic.got("streamed") == [text, output_tokens]
    assert anthropic.got("counted") == 6


def test_anthropic_uses_tools(anthropic: Ran) -> None:
    assert anthropic.got("tool") == WEATHER


@pytest.mark.parametrize("model", AI_MODELS)
def test_the_ai_sdk_answers_plain_and_streamed(ai: Ran, model: str) -> None:
    text, total_tokens = ai.got(f"{model} plain")
    assert total_tokens == 6 + -(-len(text) // 4)
    streamed, streamed_tokens = ai.got(f"{model} streamed")
    assert streamed == text
    # Its openai-compatible provider does not ask for usage.
    assert streamed_tokens == (None if model == "compatible" else total_tokens)


@pytest.mark.parametrize("model", AI_MODELS)
def test_the_ai_sdk_calls_tools(ai: Ran, model: str) -> None:
    assert ai.got(f"{model} tool") == WEATHER


def test_the_ai_sdk_embeds(ai: Ran) -> None:
    assert ai.got("embedded") == 1536


def test_every_answer_is_charged(openai: Ran, anthropic: Ran, ai: Ran) -> None:
    for ran, broken in ((openai, 1), (anthropic, 1), (ai, 0)):
        charged = [row for row in assert_books_are_exact(ran) if row["cost_nanousd"]]
        assert [row["basis"] for row in charged].count("usage") == len(charged) - broken


def test_a_stream_that_breaks_raises(openai: Ran, anthropic: Ran) -> None:
    for ran in (openai, anthropic):
        assert "Proxy error: " in ran.raised("break")["text"]


@pytest.mark.parametrize("situation", MESSAGES)
def test_a_refusal_is_shown_and_tried_once_by_the_sdks(
    openai: Ran, anthropic: Ran, situation: str
) -> None:
    for ran in (openai, anthropic):
        assert_refused(ran, situation, situation)
        assert ran.attempts[situation] == 1


def test_what_may_pass_is_tried_again(openai: Ran, anthropic: Ran) -> None:
    assert_tried_again(openai)
    assert_tried_again(anthropic)


@pytest.mark.parametrize("situation", MESSAGES)
def test_a_refusal_is_shown_by_the_ai_sdk_which_insists_on_its_own_retries(
    ai: Ran, situation: str
) -> None:
    for model in AI_MODELS:
        assert_refused(ai, f"{model} {situation}", situation)
    each = 3 if STATUSES[situation] in {429, 503} else 1
    assert ai.attempts[situation] == each * len(AI_MODELS)
