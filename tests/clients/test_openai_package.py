"""openai for Python, major versions 1 and 3."""

from collections import Counter

import pytest

from llmproxy.demo.provider import DemoProvider
from tests.clients.checks import (
    MESSAGES,
    WEATHER,
    assert_books_are_exact,
    assert_refused,
    assert_tried_again,
    tokens,
)
from tests.clients.conftest import DEV, Ran, Runner

JOKE_INPUT = -(-len("user: Tell me a joke\n") // 4)


@pytest.fixture(scope="module", params=["legacy", DEV], ids=["openai-1", "openai-3"])
def ran(request: pytest.FixtureRequest, runner: Runner, clients_demo: DemoProvider) -> Ran:
    clients_demo.counted.clear()
    return runner.python(request.param, "openai_steps")


def test_text_comes_plain_and_streamed(ran: Ran) -> None:
    text, prompt_tokens = ran.got("plain")
    assert prompt_tokens == JOKE_INPUT
    assert ran.got("streamed")[0] == text
    assert ran.got("streamed")[1] > 5
    assert ran.got("stream_usage") > 5


def test_tools_are_called(ran: Ran) -> None:
    for step in ("tool", "tool_streamed", "response_tool"):
        assert ran.got(step) == WEATHER


def test_responses_come_plain_streamed_and_incomplete(ran: Ran) -> None:
    text, input_tokens, status = ran.got("response")
    assert (input_tokens, status) == (JOKE_INPUT, "completed")
    assert ran.got("response_streamed") == [text, "response.completed", -(-len(text) // 4)]
    assert ran.got("response_incomplete") == ["incomplete", "max_output_tokens", 16]


def test_the_other_endpoints_answer(ran: Ran) -> None:
    assert ran.got("embeddings") == [2, 1536, 2]
    text, completion_tokens = ran.got("completion")
    assert (len(text) // 4, completion_tokens) == (16, 16)
    assert ran.got("moderation")
    assert ran.got("models")


def test_what_is_charged_is_what_the_provider_counted(ran: Ran, clients_demo: DemoProvider) -> None:
    rows = assert_books_are_exact(ran)
    charged = Counter(
        (row["model"], *tokens(row))
        for row in rows
        if row["basis"] == "usage" and row["cost_nanousd"]
    )
    counted = Counter(
        (each.model, each.input + each.cache_read, each.output) for each in clients_demo.counted
    )
    broken = [row for row in rows if row["basis"] == "estimate"]
    assert len(broken) == 3  # the streams that were made to break
    assert counted.total() == charged.total() + len(broken)
    assert charged <= counted


@pytest.mark.parametrize("step", ["chat break", "chat error-event", "response break"])
def test_a_stream_that_breaks_raises(ran: Ran, step: str) -> None:
    shown = "The demo provider was told to fail." if "event" in step else "Proxy error: "
    assert shown in ran.raised(step)["text"]


@pytest.mark.parametrize("situation", MESSAGES)
def test_a_refusal_is_shown_and_tried_once(ran: Ran, situation: str) -> None:
    assert_refused(ran, situation, situation)
    assert_refused(ran, f"{situation} streamed", situation)
    assert ran.attempts[situation] == 2


def test_what_may_pass_is_tried_again(ran: Ran) -> None:
    assert_tried_again(ran)
