"""What the demo asks, and what each answer must have cost by a calculation of its own."""

import json
from decimal import ROUND_CEILING, Decimal
from pathlib import Path

import llmproxy
from llmproxy.demo.client import Ask

RULES = "\n".join(
    f"House rule {number}: count every token once, charge it once, and write down why."
    for number in range(1, 71)
)
_CACHED_RULES = [{"type": "text", "text": RULES, "cache_control": {"type": "ephemeral"}}]
_OPENAI, _ANTHROPIC = "/v1/openai/chat/completions", "/v1/anthropic/messages"

ANSWERED = (
    Ask(
        title="OpenAI chat",
        path=_OPENAI,
        model="gpt-4o",
        prompt="Tell me a joke about invoices and tokens.",
    ),
    Ask(
        title="OpenAI chat, streamed, a reasoning model",
        path=_OPENAI,
        model="gpt-5-mini",
        prompt="A haiku about a proxy that counts.",
        options={"stream": True, "reasoning_effort": "medium", "max_completion_tokens": 2000},
        hidden_output_tokens=64,
    ),
    Ask(
        title="Anthropic messages, its prompt cached",
        path=_ANTHROPIC,
        model="claude-sonnet-5-5",
        prompt="Tell me a joke about your house rules.",
        options={"max_tokens": 500, "system": _CACHED_RULES},
    ),
    Ask(
        title="Anthropic messages, streamed, the cache hit",
        path=_ANTHROPIC,
        model="claude-sonnet-5-5",
        prompt="And now a haiku about them.",
        options={"max_tokens": 500, "system": _CACHED_RULES, "stream": True},
    ),
)

TOO_DEAR = Ask(
    title="Too little credit",
    path=_ANTHROPIC,
    model="claude-opus-5-5",
    prompt="Write me a long haiku.",
    options={"stream": True, "max_tokens": 100_000},
)

UNKNOWN = Ask(title="No such model", path=_OPENAI, model="gpt-4o-minni", prompt="Hello")

_PRICE_NAMES = {"input": "in_price", "output": "out_price"}


def expected_cost_usd(ask: Ask, tokens: dict[str, int], user_multiplier: str) -> Decimal:
    """Return what an answer must cost: catalog text × Decimal, apart from the program's own code.

    Reads `model_catalog.json` as text, with none of its fall-backs; rounds up to a nano-dollar.
    """
    text = (Path(llmproxy.__file__).parent / "model_catalog.json").read_text(encoding="utf-8")
    model = json.loads(text)["models"][f"{ask.provider}/{ask.model}"]
    prices = {**model.get("prices", {}), **{k: model[v] for k, v in _PRICE_NAMES.items()}}
    total = sum((Decimal(prices[name]) * n for name, n in tokens.items() if n), Decimal(0))
    exact = total / 1_000_000 * Decimal(user_multiplier) * Decimal(model.get("multiplier", "1"))
    return exact.quantize(Decimal("1e-9"), rounding=ROUND_CEILING)
