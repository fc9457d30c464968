"""Owns the extract of litellm's price list in the data file: how it is made and what it says.

In the extract a price is named `what[_1h][>threshold][@service tier]`, such as `input>200k@flex`.
Must not know genai-prices.
"""

import json
import re
from decimal import Decimal
from pathlib import Path

from scripts.catalog_generator.data import (
    DATA_FILE,
    PROVIDERS,
    Json,
    one_line_each,
    price_text,
    read_data,
)

LITELLM_PROVIDERS = {name: name for name in PROVIDERS.values()} | {
    "text-completion-openai": "openai"
}
MODES = {
    "chat": "chat",
    "responses": "chat",
    "completion": "completion",
    "embedding": "embedding",
    "image_generation": "image",
}

_LITELLM_PRICE = re.compile(
    r"(?P<name>input_cost_per_token|output_cost_per_token"
    r"|cache_read_input_token_cost|cache_creation_input_token_cost)"
    r"(?P<long>_above_1hr|_above_12hr)?(?:_above_(?P<tier>\d+k)_tokens)?"
    r"(?:_(?P<service>flex|priority|ultrafast))?"
)
_OUR_PRICE = {
    "input_cost_per_token": "input",
    "output_cost_per_token": "output",
    "cache_read_input_token_cost": "cache_read",
    "cache_creation_input_token_cost": "cache_write",
}


def extract(path: Path, version: str) -> None:
    """Replace the litellm part of the data file by an extract of litellm's price list."""
    price_list = json.loads(path.read_text(), parse_float=Decimal)
    extracted: dict[str, Json] = {}
    for key, entry in price_list.items():
        provider = LITELLM_PROVIDERS.get(entry.get("litellm_provider"))
        name = key.removeprefix(f"{provider}/")
        sized = "/" in name and provider != "groq"
        if provider is None or entry.get("mode") not in MODES or ":" in name or sized:
            continue
        facts = _facts(entry)
        if extracted.setdefault(f"{provider}/{name}", facts) != facts:
            print(f"litellm lists {provider}/{name} twice and differently; the first was taken")
    data = read_data()
    data["litellm_version"] = version
    data["litellm"] = extracted
    DATA_FILE.write_text(one_line_each(data, ("limits_by_hand", "litellm")))
    print(f"{len(extracted)} models of litellm {version} -> {DATA_FILE.name}")


def _facts(entry: Json) -> Json:
    """Return what we use of one model of litellm's list."""
    prices = {}
    for name, value in entry.items():
        if value is not None and (match := _LITELLM_PRICE.fullmatch(name)):
            key = _OUR_PRICE[match["name"]] + ("_1h" if match["long"] else "")
            key += f">{match['tier']}" if match["tier"] else ""
            key += f"@{match['service']}" if match["service"] else ""
            prices[key] = price_text(Decimal(value) * 10**6)
    searches = (entry.get("search_context_cost_per_query") or {}).values()
    if searches:
        prices["web_search_1k"] = price_text(max(Decimal(value) for value in searches) * 1000)
    facts: Json = {"mode": MODES[entry["mode"]], "prices": prices}
    for name in ("max_input_tokens", "max_output_tokens"):
        if entry.get(name):
            facts[name] = int(entry[name])
    facts["reasoning"] = bool(entry.get("supports_reasoning"))
    if entry.get("deprecation_date"):
        facts["deprecated"] = entry["deprecation_date"]
    if us_multiplier := (entry.get("provider_specific_entry") or {}).get("us"):
        facts["us_multiplier"] = price_text(Decimal(us_multiplier))
    return facts


def listed_variant(listed: dict[str, str], service: str) -> Json:
    """Return the variant of the catalog that a model's listed prices make of a service tier."""
    suffix = f"@{service}"
    own = {
        name.removesuffix(suffix): price for name, price in listed.items() if name.endswith(suffix)
    }
    tiers = sorted({name.partition(">")[2] for name in own if ">" in name})
    variant: Json = {"when": {"service_tier": [service]}} | _listed_rates(own, "")
    if tiers:
        variant["tiers"] = [
            {"above_input_tokens": int(tier.removesuffix("k")) * 1000}
            | _listed_rates(own, f">{tier}")
            for tier in tiers
        ]
    return variant


def _listed_rates(listed: dict[str, str], tier: str) -> Json:
    names = ("cache_read", "cache_write", "cache_write_1h")
    return {
        "in_price": listed[f"input{tier}"],
        "out_price": listed[f"output{tier}"],
        "prices": {name: listed[name + tier] for name in names if name + tier in listed},
    }


def thousands(above: int) -> str:
    """Return a threshold as litellm names it, such as `200k`."""
    return f"{round(above / 1000)}k"
