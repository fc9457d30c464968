"""Prices answers by genai-prices: a list of them on stdin, a USD figure or an error for each back.

It runs in an environment of its own, which has genai-prices and nothing of llmproxy.
"""

import datetime as dt
import json
import sys
from typing import Any

from genai_prices import calc_price, extract_usage


def price(answer: dict[str, Any], noon: dt.datetime) -> dict[str, Any]:
    """Return the price of an answer in USD, as an exact decimal, or what genai-prices raises."""
    provider = answer["provider"]
    try:
        found = extract_usage(answer["body"], provider_id=provider, api_flavor=answer["flavor"])
        model = answer["body"].get("model") or answer["model"]
        cost = calc_price(
            found.usage,
            model,
            provider_id=provider,
            genai_request_timestamp=noon,
            price_context=answer["context"] or None,
        )
    except (LookupError, ValueError) as error:
        return {"error": f"{type(error).__name__}: {error}"}
    return {"usd": format(cost.total_price, "f"), "model": cost.model.id}


def main() -> None:
    """Price them all."""
    asked = json.load(sys.stdin)
    noon = dt.datetime.fromisoformat(asked["at"])
    print(json.dumps({name: price(each, noon) for name, each in asked["answers"].items()}))


main()
