"""Moderations are free where the provider says so, and metered everywhere else."""

import json
from collections.abc import Iterator

import pytest

from tests.proxy.conftest import add_provider, running_site
from tests.proxy.helpers import Site, Visitor
from tests.support.answers import plain

MODEL = "mistral-moderation-2411"
RATE = 100
"""Nano-USD per token: 0.10 USD per million, as Mistral bills its model."""
BODY = json.dumps({"model": MODEL, "input": ["how are you?"]}, separators=(",", ":")).encode()
PATH = "/v1/mistral/moderations"
ANSWER = {
    "id": "mod-1",
    "model": MODEL,
    "results": [{"categories": {"sexual": False}, "category_scores": {"sexual": 1.2e-05}}],
}
USAGE = {"prompt_tokens": 9, "total_tokens": 9, "completion_tokens": 0}


@pytest.fixture(scope="module")
def mistral(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_site(tmp_path_factory.mktemp("mistral"), {}) as site:
        add_provider(site, "mistral")
        add_provider(site, "own")
        for name in ("mistral", "own"):
            prices = ("--in-price", "0.10", "--out-price", "0")
            site.proxy.run("catalog", "set", name, MODEL, *prices)
        yield site


@pytest.mark.parametrize("path", [PATH, "/v1/mistral/v1/moderations", "/v1/own/moderations"])
def test_where_it_is_billed_nobody_moderates_without_credit(mistral: Site, path: str) -> None:
    seen = len(mistral.stub.requests)
    got = mistral.ask(Visitor(*mistral.books.user(credit="0")), path, BODY)
    assert (got.status, got.error()["code"]) == (402, "insufficient_credit")
    assert len(mistral.stub.requests) == seen


def test_an_answer_without_usage_is_billed_by_the_estimate_of_its_input(mistral: Site) -> None:
    mistral.stub.handle = plain(json.dumps(ANSWER).encode())
    visitor = mistral.visitor()
    got = mistral.ask(visitor, PATH, BODY)
    assert (got.status, json.loads(got.body)) == (200, ANSWER)
    sent = mistral.last_request()
    assert (sent.target, sent.body) == (b"/v1/moderations", BODY)
    assert len(BODY) == 60
    row = mistral.assert_paid(visitor, state="settled", basis="estimate", nanousd=20 * RATE)
    assert (row["endpoint"], row["hold_nanousd"]) == ("moderations", (20 + 600) * RATE)


def test_what_an_answer_reports_is_billed(mistral: Site) -> None:
    mistral.stub.handle = plain(json.dumps({**ANSWER, "usage": USAGE}).encode())
    visitor = mistral.visitor()
    assert mistral.ask(visitor, PATH, BODY).status == 200
    mistral.assert_paid(visitor, state="settled", basis="usage", nanousd=9 * RATE)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"model": "gpt-4o"}, "unknown_model_pricing"),
        ({"model": None}, "invalid_request"),
        ({"input": [{"type": "image_url", "image_url": {"url": "x"}}]}, "option_not_metered"),
        ({"stream": True}, "option_not_metered"),
    ],
)
def test_what_has_no_price_is_refused(mistral: Site, fields: dict[str, object], code: str) -> None:
    seen = len(mistral.stub.requests)
    body = json.dumps({**json.loads(BODY), **fields}).encode()
    got = mistral.ask(mistral.visitor(), PATH, body)
    assert (got.status, got.error()["code"]) == (400, code)
    assert len(mistral.stub.requests) == seen


def test_an_error_in_place_of_the_results_costs_nothing(mistral: Site) -> None:
    mistral.stub.handle = plain(b'{"error":{"message":"too busy"}}')
    visitor = mistral.visitor()
    assert mistral.ask(visitor, PATH, BODY).status == 200
    mistral.assert_released(visitor)
