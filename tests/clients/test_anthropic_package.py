"""anthropic for Python, major versions 0 and 2."""

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


@pytest.fixture(scope="module", params=["legacy", DEV], ids=["anthropic-0", "anthropic-2"])
def ran(request: pytest.FixtureRequest, runner: Runner, clients_demo: DemoProvider) -> Ran:
    clients_demo.counted.clear()
    return runner.python(request.param, "anthropic_steps")


def test_text_comes_plain_and_streamed(ran: Ran) -> None:
    text, output_tokens = ran.got("plain")
    assert output_tokens == -(-len(text) // 4)
    assert ran.got("streamed") == [text, output_tokens]
    assert ran.got("beta") == JOKE_INPUT


def test_tools_are_used(ran: Ran) -> None:
    assert ran.got("tool") == ran.got("tool_streamed") == WEATHER


def test_tokens_are_counted_and_models_listed(ran: Ran) -> None:
    assert ran.got("counted") == JOKE_INPUT
    assert ran.got("models")


def test_what_is_charged_is_what_the_provider_counted(ran: Ran, clients_demo: DemoProvider) -> None:
    rows = [row for row in assert_books_are_exact(ran) if row["cost_nanousd"]]
    counted = [(each.input, each.output) for each in clients_demo.counted]
    exact = [row["basis"] == "usage" for row in rows]
    assert exact == [True] * 5 + [False] * 2  # the last two were made to break
    assert [tokens(row) for row in rows[:5]] == counted[:5]


@pytest.mark.parametrize("step", ["break", "error-event"])
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
