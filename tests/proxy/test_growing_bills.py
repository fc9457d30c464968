"""At its end a growing stream is held by what it is charged for, by the settlement's own rule."""

import json
from collections.abc import Iterator

import pytest

from tests.fixtures import CATALOG
from tests.proxy.conftest import STEP, running_site
from tests.proxy.helpers import CHAT, Site, Visitor, chat
from tests.proxy.test_growing_piles import WORDS, Pile, assert_covered, assert_cut, seen, stream
from tests.support.answers import data_event
from tests.support.forms import form, wav

CREDIT = 10**8
OUTPUT = 100_000
"""Nano-USD for a token: 100 USD per million."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A proxy whose holds grow in steps of 256 tokens, with two dear models that do not think."""
    home = tmp_path_factory.mktemp("bills")
    catalog = json.loads(CATALOG.read_bytes())
    dear = {"aliases": [], "in_price": "10", "out_price": "100", "max_output_tokens": 128_000}
    for name, like in (("dear", "gpt-4o"), ("dear-ear", "gpt-4o-transcribe")):
        entry = {**catalog["models"][f"openai/{like}"], **dear, "prices": {}, "variants": []}
        catalog["models"][f"openai/{name}"] = entry
    catalog["models"]["openai/dear"]["cost_from"] = "provider"
    (home / "catalog.json").write_text(json.dumps(catalog))
    environ = {
        "LLMPROXY_CATALOG_FILE": str(home / "catalog.json"),
        "LLMPROXY_HOLD_STREAM_OUTPUT_TOKENS": str(STEP),
    }
    with running_site(home, environ) as site:
        yield site


def test_a_usage_that_the_model_has_no_price_for_covers_nothing(site: Site) -> None:
    """Seconds, of a model that is billed by tokens: it is charged by the estimate, and held so.

    10,000 bytes of text are 3,334 tokens by that; there is credit for less than 1,000.
    """
    done = {"type": "transcript.text.done", "usage": {"type": "duration", "seconds": 5}}
    deltas = [{"type": "transcript.text.delta", "delta": WORDS}] * 100
    site.stub.handle = Pile([data_event(each) for each in (*deltas, done)])
    ann = Visitor(*site.books.user("0.1"))
    body = form({"model": "dear-ear", "stream": "true"}, {"file": wav(12_000)})
    got = site.ask(ann, "/v1/openai/audio/transcriptions", body)
    assert_cut(got, "insufficient_credit")
    row = site.ended(ann)
    assert (row["state"], row["basis"], row["charged_nanousd"]) == ("settled", "estimate", CREDIT)
    assert row["cost_nanousd"] >= 3334 * OUTPUT
    assert_covered(got, row)
    assert seen(got) <= 18


def test_a_cost_beside_tokens_that_cannot_be_true_is_covered_by_the_estimate(site: Site) -> None:
    """As text it could be 1,250 tokens, more than there is credit for; by the estimate 834 fit."""
    end = {"choices": [], "usage": {"prompt_tokens": -1, "cost": 0.07}}
    events = [*stream(25, include_usage=False)[:-1], data_event(end), b"data: [DONE]\n\n"]
    site.stub.handle = Pile(events)
    ann = Visitor(*site.books.user("0.1"))
    got = site.ask(ann, CHAT, chat(model="dear", max_tokens=128_000, stream=True))
    assert got.body.endswith(b"data: [DONE]\n\n")
    assert seen(got) == 25
    row = site.assert_row(ann, state="settled", basis="usage", cost=70_000_000)
    assert row["hold_nanousd"] >= 834 * OUTPUT
