"""Owns the data file of the generator, and how JSON and prices are written to files.

Must not know what either source lists: that is for litellm.py and genai_prices.py.
"""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

DATA_FILE = Path(__file__).parents[1] / "catalog_data.json"

# Names of genai-prices -> ours. litellm uses ours, and one more for old completion models.
PROVIDERS = {
    "anthropic": "anthropic",
    "deepseek": "deepseek",
    "google": "gemini",
    "groq": "groq",
    "mistral": "mistral",
    "openai": "openai",
    "x-ai": "xai",
}

Json = dict[str, Any]


def read_data() -> Json:
    """Return the content of the data file."""
    data: Json = json.loads(DATA_FILE.read_text())
    return data


def one_line_each(root: Json, spread: tuple[str, ...]) -> str:
    """Return JSON with one line per member of the objects in `spread`, so that diffs are read."""
    lines = []
    for name, value in root.items():
        if name in spread:
            rows = [
                f"  {json.dumps(key)}: {json.dumps(row, separators=(',', ':'))}"
                for key, row in sorted(value.items())
            ]
            text = "{\n" + ",\n".join(rows) + "\n }"
        else:
            text = json.dumps(value)
        lines.append(f" {json.dumps(name)}: {text}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def price_text(price: Decimal) -> str:
    """Return the one way to write a price: without an exponent or trailing zeros."""
    return format(price.normalize(), "f")
