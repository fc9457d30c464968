"""google-genai for Python and @google/genai for Node, by base URL and key alone."""

import pytest

from llmproxy.demo.provider import DemoProvider
from tests.clients.checks import (
    MESSAGES,
    STATUSES,
    WEATHER,
    assert_books_are_exact,
    assert_refused,
    tokens,
)
from tests.clients.conftest import DEV, Ran, Runner

JOKE_INPUT = -(-len("Tell me a joke") // 4)


@pytest.fixture(scope="module", params=["python", "node"])
def ran(request: pytest.FixtureRequest, clients_demo: DemoProvider) -> Ran:
    name = "runner" if request.param == "python" else "node_runner"
    runner: Runner = request.getfixturevalue(name)
    clients_demo.counted.clear()
    return runner.python(DEV, "gemini_steps") if name == "runner" else runner.node("gemini")


def test_text_comes_plain_and_streamed(ran: Ran) -> None:
    text, input_tokens, output_tokens = ran.got("plain")
    assert (input_tokens, output_tokens) == (JOKE_INPUT, -(-len(text) // 4))
    assert ran.got("streamed") == [text, output_tokens]


def test_tools_are_called(ran: Ran) -> None:
    assert ran.got("tool") == ran.got("tool_streamed") == WEATHER


def test_texts_are_embedded_and_tokens_counted_and_models_listed(ran: Ran) -> None:
    assert ran.got("embedded")[0] == 2
    assert ran.got("counted") == JOKE_INPUT
    assert "models/gemini-2.5-flash" in ran.got("listed")


def test_what_is_charged_is_what_the_provider_counted(ran: Ran, clients_demo: DemoProvider) -> None:
    rows = [row for row in assert_books_are_exact(ran) if row["cost_nanousd"]]
    counted = [(each.input, each.output) for each in clients_demo.counted]
    exact = [row["basis"] == "usage" for row in rows]
    whole = exact.count(True)
    assert exact == [True] * whole + [False] * 2  # the last two were made to break
    assert whole >= 5
    assert [tokens(row) for row in rows[:whole]] == counted[:whole]


@pytest.mark.parametrize("step", ["break", "error-event"])
def test_a_stream_that_breaks_raises(ran: Ran, step: str) -> None:
    shown = "The demo provider was told to fail." if "event" in step else "Proxy error: "
    assert shown in ran.raised(step)["text"]


def test_an_error_of_the_provider_is_shown(ran: Ran) -> None:
    assert "The demo provider was told: server-error." in ran.raised("failing")["text"]


@pytest.mark.parametrize("situation", MESSAGES)
def test_a_refusal_is_shown_and_tried_once(ran: Ran, situation: str) -> None:
    for step in (situation, f"{situation} streamed"):
        assert_refused(ran, step, situation, shows_status=False)
        raised = ran.raised(step)
        status = raised.get("error_status_code", raised.get("error_code"))
        assert status == STATUSES[situation]
    assert ran.attempts[situation] == 2
