"""What the client scripts share: where to ask, and how to tell what came of it.

A script gets its situations as JSON in the variable `SITUATIONS`, each with `url` and `key`, runs
its steps, and prints one JSON object: a step's name and what it returned, or the error it raised.
"""

import json
import os
import traceback
from collections.abc import Callable

SITUATIONS = json.loads(os.environ["SITUATIONS"])
REFUSALS = ("poor", "unknown", "wrong", "paused", "keyless")
WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city", "days"],
}
ASKED = "What is the weather in Paris?"
_results: dict[str, object] = {}


def model_for(situation: str, usual: str) -> str:
    """The model of a situation: one without a price where that is the point of it."""
    return f"{usual}-x" if situation == "unknown" else usual


def step(name: str, run: Callable[..., object], *given: object, **named: object) -> None:
    """Run one step and keep what it returns, or how it failed."""
    try:
        _results[name] = run(*given, **named)
    except Exception as error:  # noqa: BLE001 - every error is a result here
        told: dict[str, object] = {"type": type(error).__name__, "text": str(error)}
        for field in ("status_code", "code", "type"):
            if isinstance(value := getattr(error, field, None), (str, int)):
                told[f"error_{field}"] = value
        _results[name] = {"raised": told, "trace": traceback.format_exc()}


def tell() -> None:
    """Print the results."""
    print(json.dumps(_results))
