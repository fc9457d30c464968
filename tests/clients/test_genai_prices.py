"""Cross-check: genai-prices on every recorded answer that it can price, and its figure beside ours.

genai-prices is where most of the catalog's prices are from, and it has readers of usage of its own.
Our figures are those of the fixtures, which were worked out by hand. Each difference is explained
below; one that is not, or that is not there any more, fails. docs/what-gets-charged.md has the
same table.
"""

import json
import re
import subprocess
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.clients.conftest import HERE, WITHIN_S
from tests.clients.environments import python_of
from tests.fixtures import EVERY, Case

DOCUMENT = Path(__file__).parents[2] / "docs" / "what-gets-charged.md"
AT = "2026-11-23T12:00:00+00:00"
"""The day of the fixtures' catalog."""
NANOUSD = Decimal("1e-9")
PROVIDERS = {"gemini": "google", "xai": "x-ai"}
FLAVORS = {
    "chat/completions": "chat",
    "completions": "chat",
    "responses": "responses",
    "responses/compact": "responses",
    "embeddings": "embeddings",
    "images/generations": "images",
    "images/edits": "images",
}
"""Its readers of endpoints; for the others it is `default`."""
ONE_FLAVOR = frozenset({"cohere", "groq", "mistral", "perplexity"})
"""Providers whose chat completions genai-prices reads by its only reader for them."""


class Difference(NamedTuple):
    """Two figures in USD, and why they are not the same."""

    ours: str
    theirs: str
    why: str


NO_REGION = "no price by region: × 1.1 in the US"
BUSY_HOURS = "half outside DeepSeek's busy hours; the catalog has the dearer price"
THINKING = "leaves out thinking, which stands in `total_tokens` only"
GROUNDING = "does not count searches, which stand in `groundingMetadata`"
NO_DETAILS = "takes for text what the last event does not say to be an image"
OWN_PRICE = "the fixture has an operator's own price, 0.13 in and 0.40 out"
SEARCH_FEE = "takes the fee of the widest search; the answer reports 0.005"
DIFFERENCES = {
    # 0.022 / 1.1 and 0.00587675 / 1.1
    "anthropic-fast-us-plain": Difference("0.022", "0.02", NO_REGION),
    "anthropic-fast-us-stream": Difference("0.00587675", "0.0053425", NO_REGION),
    # 220 × 2 + 8 × 10 = 520 µUSD; 1400 × 2 + 77 × 10 = 3570 µUSD
    "anthropic-iterations-plain": Difference(
        "0.125302", "0.00052", "does not read `iterations`: a compaction and another model's advice"
    ),
    "anthropic-iterations-stream": Difference(
        "0.11457", "0.00357", "does not read `iterations`: a compaction"
    ),
    "deepseek-chat-plain": Difference("0.001158608", "0.000579304", BUSY_HOURS),
    "deepseek-chat-stream": Difference("0.000510664", "0.000255332", BUSY_HOURS),
    # 35 × 0.3 + 12 × 2.5 = 40.5 µUSD without 62 of thinking; 35 × 0.3 + 9 × 2.5 = 33 without 127
    "gemini-chat-plain": Difference("0.0001955", "0.0000405", THINKING),
    "gemini-chat-stream": Difference("0.0003505", "0.000033", THINKING),
    # 530 × 0.75 + 80 × 3.75 = 697.5 µUSD; 1977 × 0.3 + 135 × 2.5 = 930.6 µUSD
    "gemini-search-plain": Difference(
        "0.0432555", "0.0006975", f"{GROUNDING}, nor knows this model's priority tier"
    ),
    "gemini-stream-search-stream": Difference("0.0359306", "0.0009306", GROUNDING),
    # 9 × 0.3 + 21 × 2.5 = 55.2 µUSD
    "gemini-stream-drops-stream": Difference(
        "0.0000727", "0.0000552", "believes the last chunk, which leaves out what was answered"
    ),
    # 43 × 5 + 1156 × 10 = 11775 µUSD
    "openai-images-stream": Difference("0.037207", "0.011775", NO_DETAILS),
    # 2 × 0.01
    "openai-responses-plain": Difference(
        "0.0420472", "0.0220472", "does not read `tool_usage`: two web searches"
    ),
    # 94 × 0.59 + 36 × 0.79 = 83.9 µUSD, with 52 of output 96.54
    "openrouter-chat-plain": Difference("0.00002662", "0.0000839", OWN_PRICE),
    "openrouter-chat-stream": Difference("0.00003302", "0.00009654", OWN_PRICE),
    # 0.012 for the request where the answer says 0.005
    "perplexity-chat-plain": Difference("0.005022", "0.012022", SEARCH_FEE),
    "perplexity-chat-stream": Difference("0.005021", "0.012021", SEARCH_FEE),
}
UNPRICED = {
    "deepseek-responses": "Unknown api_flavor",
    "fireworks-chat": "Unable to find model",
    "ollama-chat": "Unable to find provider",
    "openai-speech": "Unknown api_flavor",
    "openai-transcriptions": "Unknown api_flavor",
    "openai-translations": "Unknown api_flavor",
    "openai-whisper": "Unknown api_flavor",
    "openrouter-cost": "Unable to find model",
    "together-chat": "No extraction logic",
    "vllm-chat": "Unable to find provider",
    "xai-images": "Unknown api_flavor",
}
"""Fixtures that it has no price for, and what it says."""


def events(case: Case) -> Iterator[dict[str, Any]]:
    """The JSON of each event of a stream."""
    if case.answer.startswith(b"["):  # Gemini's, which is one array
        yield from json.loads(case.answer)
    for event in case.events:
        for line in re.split(rb"\r?\n", event):
            if line.startswith(b"data:") and line != b"data: [DONE]":
                yield json.loads(line.removeprefix(b"data:"))


def answer(case: Case) -> dict[str, Any]:
    """An answer as one object, for genai-prices reads no streams."""
    if not case.is_stream:
        plain: dict[str, Any] = json.loads(case.answer)
        return plain
    values = list(events(case))
    if case.endpoint == "responses":
        response: dict[str, Any] = values[-1]["response"]
        return response
    if case.endpoint == "messages":
        message = next(one["message"] for one in values if one["type"] == "message_start")
        delta = next(one for one in values if one["type"] == "message_delta")
        return {**message, "usage": {**message["usage"], **delta["usage"]}}
    return [{**one, **one.get("x_groq", {})} for one in values if _has_usage(one)][-1]


def _has_usage(event: dict[str, Any]) -> bool:
    """Say whether it is told with an event, by its usual names or by Groq's."""
    found = event.get("usage") or event.get("usageMetadata") or event.get("x_groq", {}).get("usage")
    return bool(found)


def question(case: Case) -> dict[str, Any]:
    body = answer(case)
    usage = body.get("usage") or body.get("usageMetadata", {})
    tiers = (body.get("service_tier"), usage.get("service_tier"), usage.get("serviceTier"))
    context = {"service_tier": next(filter(None, tiers), None), "speed": usage.get("speed")}
    return {
        "provider": PROVIDERS.get(case.provider, case.provider),
        "flavor": "default"
        if case.provider in ONE_FLAVOR
        else FLAVORS.get(case.endpoint, "default"),
        "body": body,
        "model": case.model,
        "context": {name: value for name, value in context.items() if value},
    }


@pytest.fixture(scope="module")
def theirs() -> dict[str, dict[str, str]]:
    """What genai-prices says of each answer: `usd`, or `error`."""
    answers = {name: question(case) for name, case in EVERY.items()}
    done = subprocess.run(
        [python_of("genai_prices"), str(HERE / "python" / "genai_prices_steps.py")],
        input=json.dumps({"at": AT, "answers": answers}),
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, dict[str, str]] = json.loads(done.stdout)
    assert told.keys() == EVERY.keys()
    return told


@pytest.mark.parametrize("name", EVERY)
def test_its_figure_is_ours_or_the_difference_is_explained(
    theirs: dict[str, dict[str, str]], name: str
) -> None:
    case, told = EVERY[name], theirs[name]
    if case.fixture in UNPRICED:
        assert UNPRICED[case.fixture] in told.get("error", str(told))
        return
    assert "usd" in told, told
    ours, figure = case.nanousd * NANOUSD, Decimal(told["usd"])
    if name in DIFFERENCES:
        explained = DIFFERENCES[name]
        assert (ours, figure) == (Decimal(explained.ours), Decimal(explained.theirs))
        assert ours != figure
    else:
        # Ours is rounded up to whole nano-USD.
        assert 0 <= ours - figure < NANOUSD


def test_the_documentation_has_the_same_table() -> None:
    rows = [
        f"| {name} | {each.ours} | {each.theirs} | {each.why} |"
        for name, each in sorted(DIFFERENCES.items())
    ]
    text = DOCUMENT.read_text()
    shown = [line for line in text.splitlines() if re.match(r"\| [a-z-]+-(plain|stream) \|", line)]
    assert shown == rows
