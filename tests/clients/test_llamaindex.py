"""llama-index-llms-openai (chat and responses) and llama-index-llms-openai-like."""

import pytest

from tests.clients.checks import MESSAGES, WEATHER, assert_books_are_exact, assert_refused
from tests.clients.conftest import Ran, Runner

MODELS = ("chat", "responses", "like")


@pytest.fixture(scope="module")
def ran(runner: Runner) -> Ran:
    return runner.python("llamaindex", "llamaindex_steps")


@pytest.mark.parametrize("model", MODELS)
def test_text_comes_plain_and_streamed(ran: Ran, model: str) -> None:
    text, total_tokens = ran.got(f"{model} text_and_tokens")
    assert total_tokens == 6 + -(-len(text) // 4)
    assert ran.got(f"{model} streamed") == text


@pytest.mark.parametrize("model", MODELS)
def test_tools_are_called(ran: Ran, model: str) -> None:
    assert ran.got(f"{model} tool") == ran.got(f"{model} tool_streamed") == WEATHER


def test_every_answer_is_charged(ran: Ran) -> None:
    charged = [row for row in assert_books_are_exact(ran) if row["cost_nanousd"]]
    exact = [row["basis"] == "usage" for row in charged]
    assert exact == [True] * 4 * len(MODELS) + [False]  # the last was made to break


def test_a_stream_that_breaks_raises(ran: Ran) -> None:
    assert "Proxy error: " in ran.raised("break")["text"]


@pytest.mark.parametrize("situation", MESSAGES)
def test_a_refusal_is_shown_and_tried_once(ran: Ran, situation: str) -> None:
    assert_refused(ran, situation, situation)
    assert_refused(ran, f"{situation} streamed", situation)
    assert ran.attempts[situation] == (3 if situation == "poor" else 2)


def test_a_402_is_not_tried_again_by_its_own_retries_either(ran: Ran) -> None:
    assert_refused(ran, "poor by default", "poor")
