"""The maximum of output that a hold counts with is one that the provider reads."""

import json
from collections.abc import Iterator

import pytest

from tests.fixtures import CATALOG
from tests.proxy.conftest import add_provider, running_site
from tests.proxy.helpers import CHAT, Got, Site, Visitor
from tests.support.answers import openai_chat, openai_usage
from tests.support.stub_provider import Out, SeenRequest

MODELS_MAX = 100_000
OUTPUT = 10_000
"""Nano-USD per token of the model `long`."""


@pytest.fixture(scope="module", params=["default", "strict"])
def reading_site(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Site]:
    """A proxy with a model of 100,000 tokens of output at three providers of one dialect."""
    home = tmp_path_factory.mktemp(f"maxima-{request.param}")
    catalog = json.loads(CATALOG.read_bytes())
    entry = catalog["models"]["openai/gpt-4o"]
    for name in ("openai", "deepseek", "own"):
        changed = {"aliases": [], "variants": [], "max_output_tokens": MODELS_MAX}
        catalog["models"][f"{name}/long"] = {**entry, **changed}
    (home / "catalog.json").write_text(json.dumps(catalog))
    environ = {
        "LLMPROXY_CATALOG_FILE": str(home / "catalog.json"),
        "LLMPROXY_STRICT": "true" if request.param == "strict" else "false",
    }
    with running_site(home, environ) as site:
        add_provider(site, "deepseek")
        add_provider(site, "own")
        yield site


class ReadsOnly:
    """A provider that knows one maximum, takes 0 for none, and answers as long as it may."""

    def __init__(self, member: str) -> None:
        self._member = member

    async def __call__(self, request: SeenRequest, out: Out) -> None:
        tokens = request.json().get(self._member) or MODELS_MAX
        await out.json(200, openai_chat("x", usage=openai_usage(10, tokens)))


def ask(site: Site, visitor: Visitor, provider: str, **fields: object) -> Got:
    messages = [{"role": "user", "content": "hi"}]
    body = json.dumps({"model": "long", "messages": messages, **fields}).encode()
    return site.ask(visitor, CHAT.replace("openai", provider), body)


def assert_covered(site: Site, visitor: Visitor) -> dict[str, int]:
    row = site.ended(visitor)
    assert row["shortfall_nanousd"] == 0
    assert row["cost_nanousd"] <= row["hold_nanousd"]
    return row


@pytest.mark.parametrize("credit", ["0.05", "5"])
@pytest.mark.parametrize(
    "fields",
    [
        {"max_completion_tokens": 1},
        {"max_completion_tokens": 2000},
        {"max_tokens": 0},
        {"max_tokens": 0, "max_completion_tokens": 0},
        {"max_tokens": 1, "max_completion_tokens": 2000},
    ],
)
@pytest.mark.parametrize("provider", ["deepseek", "own"])
def test_a_provider_that_reads_only_max_tokens_never_costs_more_than_was_held(
    reading_site: Site, provider: str, fields: dict[str, object], credit: str
) -> None:
    reading_site.stub.handle = ReadsOnly("max_tokens")
    ann = Visitor(*reading_site.books.user(credit))
    assert ask(reading_site, ann, provider, **fields).status == 200
    assert_covered(reading_site, ann)


def test_what_deepseek_ignores_is_written_in_under_the_name_that_it_reads(
    reading_site: Site,
) -> None:
    reading_site.stub.handle = ReadsOnly("max_tokens")
    ann = reading_site.visitor()
    ask(reading_site, ann, "deepseek", max_completion_tokens=300)
    sent = reading_site.last_request().json()
    assert (sent["max_tokens"], sent["max_completion_tokens"]) == (300, 300)
    row = assert_covered(reading_site, ann)
    assert 300 * OUTPUT <= row["hold_nanousd"] < 1000 * OUTPUT


def test_what_an_own_provider_may_not_read_is_passed_on_alone_and_held_as_none(
    reading_site: Site,
) -> None:
    reading_site.stub.handle = ReadsOnly("max_completion_tokens")
    ann = reading_site.visitor()
    ask(reading_site, ann, "own", max_completion_tokens=300)
    # One that reads both may refuse to be told both.
    assert "max_tokens" not in reading_site.last_request().json()
    assert assert_covered(reading_site, ann)["hold_nanousd"] >= MODELS_MAX * OUTPUT


@pytest.mark.parametrize("member", ["max_tokens", "max_completion_tokens"])
def test_openai_reads_both(reading_site: Site, member: str) -> None:
    reading_site.stub.handle = ReadsOnly(member)
    ann = reading_site.visitor()
    ask(reading_site, ann, "openai", **{member: 300})
    sent = reading_site.last_request().json()
    assert sent.keys() & {"max_tokens", "max_completion_tokens"} == {member}
    assert assert_covered(reading_site, ann)["hold_nanousd"] < 1000 * OUTPUT
