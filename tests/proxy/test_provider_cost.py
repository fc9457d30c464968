"""Where the catalog says so, what a provider says that it bills is the bill, odd tokens or none."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fixtures import CATALOG
from tests.proxy.conftest import running_site
from tests.proxy.helpers import CHAT, Site
from tests.support.answers import data_event, named_event, plain, stream
from tests.support.limits import limit_key
from tests.support.stub_provider import Out, SeenRequest

COMPLETIONS = "/v1/openai/completions"
RESPONSES = "/v1/openai/responses"
TEXT = "größe " * 50
"""400 bytes, by the estimate 134 tokens."""
COST_NANOUSD = 23_500_000
UNTRUE = {
    "negative": {"prompt_tokens": -1, "completion_tokens": 20, "cost": 0.0235},
    "zeros": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0, "cost": 0.0235},
    "alone": {"cost": 0.0235},
}
"""Usage that OpenRouter and others like it have sent, or might."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Two models at 2.50 and 10 USD: of `told` the provider tells the cost, of `counted` nobody.

    `pondering` is as `told`, and thinks. A client that has left is waited for no longer than 1 s.
    """
    home = tmp_path_factory.mktemp("told")
    catalog = json.loads(CATALOG.read_bytes())
    entry = {**catalog["models"]["openai/gpt-4o"], "aliases": []}
    catalog["models"]["openai/counted"] = entry
    catalog["models"]["openai/told"] = {**entry, "cost_from": "provider"}
    catalog["models"]["openai/pondering"] = {**entry, "cost_from": "provider", "reasoning": True}
    (home / "catalog.json").write_text(json.dumps(catalog))
    environ = {
        "LLMPROXY_CATALOG_FILE": str(home / "catalog.json"),
        "LLMPROXY_DRAIN_TIMEOUT_S": "1",
    }
    with running_site(home, environ) as site:
        yield site


def request(path: str, model: str, **fields: object) -> bytes:
    """A request of at most 1,000 tokens of output."""
    body: dict[str, object] = {"model": model, **fields}
    if path == CHAT:
        body |= {"max_tokens": 1000, "messages": [{"role": "user", "content": "hi"}]}
    elif path == COMPLETIONS:
        body |= {"max_tokens": 1000, "prompt": "hi"}
    else:
        body |= {"max_output_tokens": 1000, "input": "hi"}
    return json.dumps(body).encode()


def answer(path: str, usage: dict[str, Any], *, is_stream: bool) -> tuple[list[bytes], int]:
    """Return an answer of `TEXT`, and for how many bytes of generated text it counts."""
    if path == RESPONSES:
        output = [{"type": "message", "content": [{"type": "output_text", "text": TEXT}]}]
        whole = {"id": "r", "model": "m", "status": "completed", "output": output, "usage": usage}
        if is_stream:
            begun = named_event("response.output_text.delta", delta=TEXT)
            return [begun, named_event("response.completed", response=whole)], len(TEXT.encode())
        return [_json(whole)], len(_json(output[0]))
    text = {"delta": {"content": TEXT}} if path == CHAT else {"text": TEXT}
    if is_stream:
        end = {"choices": [{"index": 0, "finish_reason": "stop"}], "usage": usage}
        begun = data_event({"choices": [{"index": 0, **text}]})
        return [begun, data_event(end), b"data: [DONE]\n\n"], len(TEXT.encode())
    choice = {"message": {"content": TEXT}} if path == CHAT else text
    return [_json({"model": "m", "choices": [choice], "usage": usage})], len(_json(choice))


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def give(site: Site, events: list[bytes], *, is_stream: bool) -> None:
    site.stub.handle = stream(events) if is_stream else plain(events[0])


EACH = [
    (path, is_stream, name)
    for path in (CHAT, COMPLETIONS, RESPONSES)
    for is_stream in (False, True)
    for name in UNTRUE
]


def usage_of(path: str, name: str) -> dict[str, Any]:
    usage: dict[str, Any] = UNTRUE[name]
    if path != RESPONSES:
        return usage
    names = {"prompt_tokens": "input_tokens", "completion_tokens": "output_tokens"}
    return {names.get(key, key): value for key, value in usage.items()}


@pytest.mark.parametrize(("path", "is_stream", "name"), EACH)
def test_what_the_provider_bills_is_the_bill_though_its_tokens_cannot_be_true(
    site: Site, path: str, is_stream: bool, name: str
) -> None:
    """The row has the tokens of the estimate, and says so."""
    events, seen = answer(path, usage_of(path, name), is_stream=is_stream)
    give(site, events, is_stream=is_stream)
    ann, body = site.visitor(), request(path, "told", stream=is_stream)
    assert site.ask(ann, path, body).status == 200
    row = site.assert_paid(ann, state="settled", basis="usage", nanousd=COST_NANOUSD)
    (leg,) = json.loads(row["usage"])["legs"]
    assert leg == {"input": -(-len(body) // 3), "output": -(-seen // 3)}
    (line,) = json.loads(row["receipt"])
    assert (line["usage_class"], line["rate"]) == ("provider_cost", COST_NANOUSD * 10**6)
    assert json.loads(row["raw_usage"]) == usage_of(path, name)
    problem, _, rest = row["reason"].partition(": ")
    assert problem in {
        "absurd token count -1",
        "usage reports no tokens for an answer with text",
        "usage has no token counts",
    }
    assert rest == "the provider's own cost counts, and of the tokens the estimate"


@pytest.mark.parametrize(("path", "is_stream", "name"), EACH)
def test_where_the_catalog_does_not_say_so_the_estimate_is_the_bill(
    site: Site, path: str, is_stream: bool, name: str
) -> None:
    events, seen = answer(path, usage_of(path, name), is_stream=is_stream)
    give(site, events, is_stream=is_stream)
    ann, body = site.visitor(), request(path, "counted", stream=is_stream)
    assert site.ask(ann, path, body).status == 200
    nanousd = -(-len(body) // 3) * 2500 + -(-seen // 3) * 10_000
    row = site.assert_paid(ann, state="settled", basis="estimate", nanousd=nanousd)
    assert "provider's own cost" not in row["reason"]


def test_an_answer_that_the_provider_gives_away_costs_nothing(site: Site) -> None:
    events, _ = answer(CHAT, {"prompt_tokens": -1, "cost": 0}, is_stream=False)
    give(site, events, is_stream=False)
    ann = site.visitor()
    site.ask(ann, CHAT, request(CHAT, "told"))
    site.assert_paid(ann, state="settled", basis="usage", nanousd=0)


@pytest.mark.parametrize("cost", [-1, "0.02", None])
def test_an_odd_cost_beside_tokens_that_cannot_be_true_is_none(site: Site, cost: object) -> None:
    events, seen = answer(CHAT, {"prompt_tokens": -1, "cost": cost}, is_stream=False)
    give(site, events, is_stream=False)
    ann, body = site.visitor(), request(CHAT, "told")
    site.ask(ann, CHAT, body)
    nanousd = -(-len(body) // 3) * 2500 + -(-seen // 3) * 10_000
    site.assert_paid(ann, state="settled", basis="estimate", nanousd=nanousd)


def test_a_cost_that_came_before_a_stream_broke_off_is_no_bill(site: Site) -> None:
    """What is reported on the way is not final."""
    begun = {"choices": [{"index": 0, "delta": {"content": TEXT}}], "usage": UNTRUE["alone"]}
    site.stub.handle = stream([data_event(begun)])
    ann, body = site.visitor(), request(CHAT, "told", stream=True)
    site.ask(ann, CHAT, body)
    nanousd = -(-len(body) // 3) * 2500 + 134 * 10_000
    site.assert_paid(ann, state="settled", basis="estimate", nanousd=nanousd)


@pytest.mark.parametrize(
    ("cost", "nanousd"), [(0, 10 * 2500 + 134 * 10_000), (0.0235, COST_NANOUSD)]
)
@pytest.mark.parametrize("is_broken", [False, True])
def test_a_cost_on_the_way_is_the_least_that_is_charged(
    site: Site, cost: float, nanousd: int, is_broken: bool
) -> None:
    """The provider goes on counting behind it: beside it stands the text that came since."""
    usage = {"prompt_tokens": 10, "completion_tokens": 0, "total_tokens": 10, "cost": cost}
    first = {"choices": [{"index": 0, "delta": {"role": "assistant"}}], "usage": usage}
    text = {"choices": [{"index": 0, "delta": {"content": TEXT}}]}
    ends = [] if is_broken else [b"data: [DONE]\n\n"]
    site.stub.handle = stream([data_event(first), data_event(text), *ends])
    ann = site.visitor()
    site.ask(ann, CHAT, request(CHAT, "told", stream=True))
    site.assert_paid(ann, state="settled", basis="estimate", nanousd=nanousd)


def test_the_tokens_of_such_a_row_count_for_the_limits(site: Site) -> None:
    events, seen = answer(CHAT, UNTRUE["alone"], is_stream=True)
    give(site, events, is_stream=True)
    ann, body = site.visitor(), request(CHAT, "told", stream=True)
    limit_key(site.books, ann.name, tokens_per_minute=-(-len(body) // 3) + -(-seen // 3))
    assert site.ask(ann, CHAT, body).status == 200
    refused = site.ask(ann, CHAT, body)
    assert (refused.status, refused.error()["code"]) == (429, "rate_limit_exceeded")


def test_a_client_that_left_pays_the_cost_that_had_come(site: Site) -> None:
    """The answer has told it, and does not end; of a model that thinks the hold was charged."""
    events, _ = answer(CHAT, UNTRUE["negative"], is_stream=True)

    async def handle(request: SeenRequest, out: Out) -> None:
        await out.head(200, [("content-type", "text/event-stream")])
        for event in events[:-1]:
            await out.chunk(event)
        while not out.closed:
            await asyncio.sleep(0.01)

    site.stub.handle = handle
    ann = site.visitor()
    with site.send(ann, CHAT, request(CHAT, "pondering", stream=True)) as client:
        client.recv_head()
        taken = b""
        for _, piece in client.recv_chunks():
            taken += piece
            if b"finish_reason" in taken:
                break
    row = site.assert_paid(ann, state="settled", basis="usage", nanousd=COST_NANOUSD)
    assert "left" in row["reason"]


@pytest.mark.parametrize(("model", "cost"), [("told", COST_NANOUSD), ("counted", 0)])
def test_an_answer_without_text_that_the_provider_bills_is_paid(
    site: Site, model: str, cost: int
) -> None:
    """Nothing can be seen of it; who bills it says that there was something."""
    empty = {"choices": [], "usage": UNTRUE["negative"]}
    give(site, [_json(empty)], is_stream=False)
    ann = site.visitor()
    site.ask(ann, CHAT, request(CHAT, model))
    assert site.ended(ann)["cost_nanousd"] == cost
