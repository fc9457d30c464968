"""langchain-openai and langchain-anthropic."""

import pytest

from tests.clients.checks import MESSAGES, WEATHER, assert_books_are_exact, assert_refused
from tests.clients.conftest import Ran, Runner


@pytest.fixture(scope="module")
def ran(runner: Runner) -> Ran:
    return runner.python("frameworks", "langchain_steps")


@pytest.mark.parametrize("model", ["gpt", "claude", "responses"])
def test_text_comes_plain_and_streamed_with_usage(ran: Ran, model: str) -> None:
    text, total_tokens = ran.got(f"{model} text")
    assert total_tokens == 6 + -(-len(text) // 4)
    assert ran.got(f"{model} streamed") == text


@pytest.mark.parametrize("model", ["gpt", "claude"])
def test_tools_are_called(ran: Ran, model: str) -> None:
    assert ran.got(f"{model} tool") == WEATHER


def test_texts_are_embedded(ran: Ran) -> None:
    assert ran.got("embedded") == 1536


def test_every_answer_is_charged_by_its_usage(ran: Ran) -> None:
    assert {row["basis"] for row in assert_books_are_exact(ran)} == {"usage"}


@pytest.mark.parametrize("situation", MESSAGES)
def test_a_refusal_is_shown_and_tried_once(ran: Ran, situation: str) -> None:
    for model in ("gpt", "claude"):
        assert_refused(ran, f"{model} {situation}", situation)
    assert ran.attempts[situation] == 2
