"""Generates model_catalog.json. A tool for development time; nothing in llmproxy imports it.

Prices come from genai-prices (MIT). What that lacks (limits, reasoning flags, 12 h cache writes,
regional multipliers, some service tiers) comes from the price list inside the litellm wheel (MIT),
of which `scripts/catalog_data.json` keeps an extract beside a few facts kept by hand. Both
sources are compared; where they disagree, genai-prices stands and the report names it.

Run from the root of the repository, in an environment of its own:

    python -m venv .venv && . .venv/bin/activate
    pip install msgspec genai-prices==0.2.3
    python -m scripts.generate_catalog --date 2026-11-23

To take a newer extract (nothing of litellm is installed or run):

    pip download litellm==1.109.1 --no-deps
    unzip -p litellm-1.109.1-*.whl litellm/model_prices_and_context_window_backup.json > list.json
    python -m scripts.generate_catalog --extract-limits list.json --litellm-version 1.109.1

All prices are decimal strings or Decimal, in USD per million tokens. Read the report and the
difference of model_catalog.json before committing it.
"""

import argparse
import datetime as dt
import importlib
import importlib.metadata
import json
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from llmproxy.catalog_parser import parse_catalog

DATA_FILE = Path(__file__).with_name("catalog_data.json")
CATALOG_FILE = Path(__file__).parents[1] / "model_catalog.json"

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
SERVICE_TIERS = ("flex", "priority", "ultrafast")
NOT_TEXT = re.compile(r"tts|transcribe|live|realtime|audio|voice|voxtral|omni|robotics|-ocr-")

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

Json = dict[str, Any]

# Objects of genai-prices, which is installed for this script only and thus untyped here.
Clause = Any
ModelPrice = Any
TieredPrice = Any
ModelInfo = Any
Provider = Any


# --- The extract of litellm's list ------------------------------------------------------------


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
    data = _read_data()
    data["litellm_version"] = version
    data["litellm"] = extracted
    DATA_FILE.write_text(_one_line_each(data, ("limits_by_hand", "litellm")))
    print(f"{len(extracted)} models of litellm {version} -> {DATA_FILE.name}")


def _facts(entry: Json) -> Json:
    """Return what we use of one model of litellm's list."""
    prices = {}
    for name, value in entry.items():
        if value is not None and (match := _LITELLM_PRICE.fullmatch(name)):
            key = _OUR_PRICE[match["name"]] + ("_1h" if match["long"] else "")
            key += f">{match['tier']}" if match["tier"] else ""
            key += f"@{match['service']}" if match["service"] else ""
            prices[key] = _text(Decimal(value) * 10**6)
    searches = (entry.get("search_context_cost_per_query") or {}).values()
    if searches:
        prices["web_search_1k"] = _text(max(Decimal(value) for value in searches) * 1000)
    facts: Json = {"mode": MODES[entry["mode"]], "prices": prices}
    for name in ("max_input_tokens", "max_output_tokens"):
        if entry.get(name):
            facts[name] = int(entry[name])
    facts["reasoning"] = bool(entry.get("supports_reasoning"))
    if entry.get("deprecation_date"):
        facts["deprecated"] = entry["deprecation_date"]
    if us_multiplier := (entry.get("provider_specific_entry") or {}).get("us"):
        facts["us_multiplier"] = _text(Decimal(us_multiplier))
    return facts


# --- Names and prices from genai-prices -------------------------------------------------------


def _exact_names(clause: Clause) -> set[str]:
    """Return the ids that a match clause names exactly; patterns are left out."""
    if hasattr(clause, "equals"):
        return {clause.equals}
    return {name for part in getattr(clause, "or_", ()) for name in _exact_names(part)}


def _usable(name: str) -> bool:
    """Tell whether a name is one of the provider's own, not a router's spelling of it."""
    return ":" not in name and not name.startswith("x-ai/")


def prices_in_force(model: ModelInfo, day: dt.datetime) -> tuple[ModelPrice, str]:
    """Return the prices of a model on a day and a note when they depend on time.

    Of prices by time of day the dearest is taken: the catalog has one price for the whole day.
    """
    if not isinstance(model.prices, list):
        return model.prices, ""
    candidates = []
    for conditional in reversed(model.prices):
        if hasattr(conditional.constraint, "start_time"):
            candidates.append(conditional.prices)
        elif conditional.constraint is None or conditional.constraint.active(day):
            candidates.append(conditional.prices)
            break
    dearest = max(candidates, key=lambda prices: _at(prices.input_mtok, 0) or 0)
    starts = [
        conditional.constraint.start_date
        for conditional in model.prices
        if hasattr(conditional.constraint, "start_date")
    ]
    future = [f"changes on {start}" for start in starts if start > day.date()]
    by_hour = ["by time of day; the dearest was taken"] if len(candidates) > 1 else []
    return dearest, "; ".join(future + by_hour)


def _at(price: TieredPrice, above: int) -> Decimal | None:
    """Return a price for an input just above a threshold (0: the base price)."""
    if price is None or isinstance(price, Decimal):
        return price
    found: Decimal = price.base
    for tier in price.tiers:
        if above and above >= tier.start:
            found = tier.price
    return found


def _thresholds(prices: ModelPrice) -> list[int]:
    tiered = [price for price in vars(prices).values() if hasattr(price, "tiers")]
    return sorted({tier.start for price in tiered for tier in price.tiers})


def _is_per_token(prices: ModelPrice) -> bool:
    keys = {key for key, value in vars(prices).items() if value is not None}
    searches = {"web_searches_kcount", "storage_searches_kcount"}
    return "input_mtok" in keys and all(key.endswith("_mtok") for key in keys - searches)


# --- One entry of the catalog -----------------------------------------------------------------


@dataclass
class Report:
    """What a person must see before committing a new catalog."""

    disagreements: list[str] = field(default_factory=list)
    names_refused: list[str] = field(default_factory=list)
    by_time: list[str] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    dearer_media: list[str] = field(default_factory=list)
    dearest_of_media: list[str] = field(default_factory=list)
    without_limits: list[str] = field(default_factory=list)
    from_litellm: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    only_litellm: list[str] = field(default_factory=list)

    def show(self, counts: dict[str, Counter[str]]) -> None:
        """Print everything."""
        for provider, count in sorted(counts.items()):
            print(f"{provider}: {dict(sorted(count.items()))}")
        sections: dict[str, list[str]] = {
            "The sources disagree (genai-prices was kept)": self.disagreements,
            "Names of litellm left out, priced otherwise by genai-prices": self.names_refused,
            "Prices that depend on time": self.by_time,
            "Other media cost more than the text price that is listed": self.dearer_media,
            "Priced at the dearest of text and image": self.dearest_of_media,
            "No limits known; counted as reasoning": self.without_limits,
            "Listed by litellm only, left out": self.only_litellm,
        }
        sections |= self.left_out | self.from_litellm
        for title, lines in sections.items():
            shown = sorted(lines)
            print(f"\n{title}: {len(shown)}", *shown, sep="\n  ")


class Generator:
    """Builds the entries of the catalog from both sources."""

    def __init__(self, data: Json, day: dt.datetime) -> None:
        """Take the data file and the day whose prices count."""
        self.data = data
        self.day = day
        self.report = Report()
        self.entries: dict[str, Json] = {}

    def add_provider(self, provider: Provider) -> None:
        """Add the token-priced text and image models of one provider of genai-prices."""
        ours = PROVIDERS[provider.id]
        prefix = f"{ours}/"
        listed = [
            key.removeprefix(prefix) for key in self.data["litellm"] if key.startswith(prefix)
        ]
        listed_by_id = defaultdict(set)
        for name in listed:
            model = provider.find_model(name)
            listed_by_id[model.id if model else None].add(name)
        for model in provider.models:
            if not (ours == "gemini" and model.id.startswith("claude")):
                self._add_model(provider, model, listed_by_id[model.id])
        for name in listed_by_id[None]:
            self.report.only_litellm.append(f"{ours}/{name}")

    def _add_model(self, provider: Provider, model: ModelInfo, listed: set[str]) -> None:
        ours = PROVIDERS[provider.id]
        key = f"{ours}/{model.id}"
        prices, note = prices_in_force(model, self.day)
        reason = self._reason_to_leave_out(key, prices)
        if reason:
            self.report.left_out[reason].append(key)
            return
        if note:
            self.report.by_time.append(f"{key}: {note}")
        names = _exact_names(model.match) | {model.id}
        names |= set(self.data["extra_aliases"].get(key, ()))
        names |= {name for name in listed if self._same_price(ours, name, prices)}
        names = {name for name in names if _usable(name) and provider.find_model(name) is model}
        if not names:
            self.report.left_out["Left out, genai-prices knows no exact name"].append(key)
            return
        self.report.names_refused += [f"{ours}/{name}" for name in listed - names]
        main = model.id if model.id in names else min(names, key=lambda n: (n not in listed, n))
        for group in self._by_limits(ours, main, names):
            entry_id = main if main in group else min(group, key=lambda n: (len(n), n))
            for name in sorted(group):
                self._cross_check(f"{ours}/{name}", prices)
            self._add_entry(ours, entry_id, group - {entry_id}, model, prices)

    def _reason_to_leave_out(self, key: str, prices: ModelPrice) -> str:
        for reason, keys in self.data["left_out"].items():
            if key in keys:
                return f"Left out by hand, {reason}"
        if NOT_TEXT.search(key):
            return "Left out, speech, video, scans or real time"
        if not _is_per_token(prices):
            return "Left out, no price per token"
        return ""

    def _same_price(self, provider: str, name: str, prices: ModelPrice) -> bool:
        listed = self.data["litellm"][f"{provider}/{name}"]["prices"]
        pairs = (
            (prices.input_mtok, "input"),
            (prices.output_mtok, "output"),
            (prices.cache_read_mtok, "cache_read"),
        )
        return all(
            Decimal(listed[key]) == _at(price, 0)
            for price, key in pairs
            if key in listed and price is not None
        )

    def _limits(self, provider: str, name: str) -> Json | None:
        by_hand: Json | None = self.data["limits_by_hand"].get(f"{provider}/{name}")
        return by_hand or self.data["litellm"].get(f"{provider}/{name}")

    def _by_limits(self, provider: str, main: str, names: set[str]) -> list[set[str]]:
        """Split names of one price by their limits; unknown ones stay with the main name."""
        groups: dict[str, set[str]] = defaultdict(set)
        for name in sorted(names, key=lambda name: (name != main, name)):
            limits = self._limits(provider, name)
            if limits is None:
                groups[""].add(name)
                continue
            keys = ("mode", "max_input_tokens", "max_output_tokens", "reasoning")
            groups[json.dumps([limits.get(key) for key in keys])].add(name)
        unknown = groups.pop("", set())
        if not groups:
            return [unknown]
        home = next((group for group in groups.values() if main in group), None)
        (home or max(groups.values(), key=len)).update(unknown)
        return list(groups.values())

    def _add_entry(
        self, provider: str, name: str, aliases: set[str], model: ModelInfo, prices: ModelPrice
    ) -> None:
        key = f"{provider}/{name}"
        known = next(
            (limits for n in (name, *sorted(aliases)) if (limits := self._limits(provider, n))), {}
        )
        listed = self.data["litellm"].get(key, {})
        mode = known.get("mode") or _guessed_mode(prices)
        entry: Json = {"mode": mode, "aliases": sorted(aliases)}
        limits = {
            "max_input_tokens": known.get("max_input_tokens") or model.context_window,
            "max_output_tokens": known.get("max_output_tokens"),
        }
        entry |= {limit: count for limit, count in limits.items() if count}
        entry["reasoning"] = known.get("reasoning", mode == "chat")
        if not known and mode != "embedding":
            self.report.without_limits.append(key)
        if "deprecated" in listed:
            entry["deprecated"] = listed["deprecated"]
        entry |= self._block(key, prices, mode, "")
        entry["prices"] |= self._search_fee(key, prices)
        variants = self._variants(key, model, prices, mode)
        entry |= {"variants": variants} if variants else {}
        if "us_multiplier" in listed:
            entry["geo_multiplier"] = {"us": listed["us_multiplier"]}
        if key in self.entries:
            raise SystemExit(f"{key} would be written twice")
        self.entries[key] = entry
        self._note_media(key, prices, mode)

    def _search_fee(self, key: str, prices: ModelPrice) -> Json:
        fee = _at(prices.web_searches_kcount, 0)
        if fee is not None:
            return {"web_search_1k": _text(fee)}
        listed = self.data["litellm"].get(key, {}).get("prices", {}).get("web_search_1k")
        if listed is None:
            return {}
        self.report.from_litellm["Web search fee from litellm"].append(f"{key} {listed}")
        return {"web_search_1k": listed}

    def _block(self, key: str, prices: ModelPrice, mode: str, service: str) -> Json:
        """Return the prices of a model or variant: base and tiers."""
        block = self._rates(key, prices, mode, 0, service)
        tiers = [
            {"above_input_tokens": above} | self._rates(key, prices, mode, above, service)
            for above in _thresholds(prices)
        ]
        return block | ({"tiers": tiers} if tiers else {})

    def _rates(self, key: str, prices: ModelPrice, mode: str, above: int, service: str) -> Json:
        media = mode == "image"
        input_price = _dearest(prices, above, "input_mtok", "input_image_mtok", media=media)
        output = _dearest(prices, above, "output_mtok", "output_image_mtok", media=media)
        if input_price is None or (output is None and mode != "embedding"):
            raise SystemExit(f"{key} lacks a price per token")
        read = _dearest(prices, above, "cache_read_mtok", "cache_image_read_mtok", media=media)
        write = _at(prices.cache_write_mtok, above)
        write_1h = _at(prices.cache_write_1h_mtok, above)
        if write is not None and write_1h is None:
            suffix = (f">{_thousands(above)}" if above else "") + (service and f"@{service}")
            listed = self.data["litellm"].get(key, {}).get("prices", {})
            if f"cache_write_1h{suffix}" in listed:
                write_1h = Decimal(listed[f"cache_write_1h{suffix}"])
            else:
                title = "No price for long cache writes (12 h): the short one will be charged"
                self.report.from_litellm[title].append(f"{key} {suffix}")
        further = {"cache_read": read, "cache_write": write, "cache_write_1h": write_1h}
        return {
            "in_price": _text(input_price),
            "out_price": _text(output or Decimal(0)),
            "prices": {name: _text(price) for name, price in further.items() if price is not None},
        }

    def _variants(self, key: str, model: ModelInfo, base: ModelPrice, mode: str) -> list[Json]:
        found: dict[str, dict[str, list[str]]] = {}
        for variant in model.price_variants or ():
            if "processing" in variant.when:
                continue
            ((what, value),) = variant.when.items()
            prices = model.get_prices(self.day, variant.when)
            if prices == base and value == "default":
                continue
            service = "priority" if value == "fast" and what == "service_tier" else value
            block = json.dumps(self._block(key, prices, mode, service))
            values = found.setdefault(block, {}).setdefault(what, [])
            values += [value] if value not in values else []
        variants = [
            {"when": {what: sorted(values) for what, values in when.items()}} | json.loads(block)
            for block, when in found.items()
        ]
        named = {value for when in found.values() for values in when.values() for value in values}
        variants += [
            self._listed_variant(key, service)
            for service in SERVICE_TIERS
            if service not in named and mode == "chat" and self._can_supplement(key, service, base)
        ]
        return sorted(variants, key=lambda variant: json.dumps(variant["when"]))

    def _can_supplement(self, key: str, service: str, base: ModelPrice) -> bool:
        """Tell whether litellm prices a service tier and agrees with the base prices."""
        listed = self.data["litellm"].get(key, {}).get("prices", {})
        return (
            {f"input@{service}", f"output@{service}"} <= listed.keys()
            and Decimal(listed.get("input", -1)) == _at(base.input_mtok, 0)
            and Decimal(listed.get("output", -1)) == _at(base.output_mtok, 0)
        )

    def _listed_variant(self, key: str, service: str) -> Json:
        listed = self.data["litellm"][key]["prices"]
        suffix = f"@{service}"
        own = {
            name.removesuffix(suffix): price
            for name, price in listed.items()
            if name.endswith(suffix)
        }
        tiers = sorted({name.partition(">")[2] for name in own if ">" in name})
        self.report.from_litellm["Service tier priced by litellm"].append(f"{key} {service}")
        variant: Json = {"when": {"service_tier": [service]}} | _listed_rates(own, "")
        if tiers:
            variant["tiers"] = [
                {"above_input_tokens": int(tier.removesuffix("k")) * 1000}
                | _listed_rates(own, f">{tier}")
                for tier in tiers
            ]
        return variant

    def _cross_check(self, key: str, prices: ModelPrice) -> None:
        """Note every base and tier price on which the two sources differ."""
        listed = self.data["litellm"].get(key, {}).get("prices")
        if not listed:
            return
        fee = _at(prices.web_searches_kcount, 0)
        if fee is not None and fee != Decimal(listed.get("web_search_1k", fee)):
            line = f"{key} web_search_1k: {_text(fee)}, litellm {listed['web_search_1k']}"
            self.report.disagreements.append(line)
        ours = {
            "input": prices.input_mtok,
            "output": prices.output_mtok,
            "cache_read": prices.cache_read_mtok,
            "cache_write": prices.cache_write_mtok,
        }
        thresholds = {_thousands(above): above for above in _thresholds(prices)}
        tiers = {name.partition(">")[2] for name in listed if ">" in name and "@" not in name}
        for tier in sorted({"", *thresholds, *tiers}):
            above = thresholds.get(tier, 0)
            for name, price in ours.items():
                full = f"{name}>{tier}" if tier else name
                mine = _at(price, above) if above or not tier else None
                theirs = Decimal(listed[full]) if full in listed else None
                if mine != theirs and (mine or theirs):
                    lower = " (ours is lower)" if theirs and mine and mine < theirs else ""
                    line = f"{key} {full}: {_or_none(mine)}, litellm {_or_none(theirs)}{lower}"
                    self.report.disagreements.append(line)

    def _note_media(self, key: str, prices: ModelPrice, mode: str) -> None:
        pairs = ("input_audio_mtok", "input_image_mtok", "input_video_mtok", "output_image_mtok")
        dearer = [
            f"{name.removesuffix('_mtok')} {price}"
            for name in pairs
            if (price := _at(getattr(prices, name), 0)) is not None
            and price > (_at(getattr(prices, name.partition("_")[0] + "_mtok"), 0) or 0)
        ]
        if dearer:
            notes = self.report.dearest_of_media if mode == "image" else self.report.dearer_media
            notes.append(f"{key}: {', '.join(dearer)}")


def _guessed_mode(prices: ModelPrice) -> str:
    if prices.output_mtok is None:
        return "embedding"
    return "image" if prices.output_image_mtok is not None else "chat"


def _dearest(
    prices: ModelPrice, above: int, text: str, image: str, *, media: bool
) -> Decimal | None:
    price = _at(getattr(prices, text), above)
    other = _at(getattr(prices, image), above) if media else None
    return max((p for p in (price, other) if p is not None), default=None)


def _listed_rates(listed: dict[str, str], tier: str) -> Json:
    names = ("cache_read", "cache_write", "cache_write_1h")
    return {
        "in_price": listed[f"input{tier}"],
        "out_price": listed[f"output{tier}"],
        "prices": {name: listed[name + tier] for name in names if name + tier in listed},
    }


def _thousands(above: int) -> str:
    return f"{round(above / 1000)}k"


def _or_none(price: Decimal | None) -> str:
    return "none" if price is None else _text(price)


def _text(price: Decimal) -> str:
    return format(price.normalize(), "f")


# --- Files ------------------------------------------------------------------------------------


def _read_data() -> Json:
    data: Json = json.loads(DATA_FILE.read_text())
    return data


def _one_line_each(root: Json, spread: tuple[str, ...]) -> str:
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


def generate(day: dt.date, output: Path) -> None:
    """Write the catalog with the prices in force on a day and print the report."""
    data = _read_data()
    noon = dt.datetime.combine(day, dt.time(12), dt.UTC)
    generator = Generator(data, noon)
    providers = importlib.import_module("genai_prices.data").providers
    for provider in providers:
        if provider.id in PROVIDERS:
            generator.add_provider(provider)
    sources = {
        "genai-prices": f"{importlib.metadata.version('genai-prices')}, MIT licence",
        "litellm": f"{data['litellm_version']}, MIT licence, price list only",
    }
    catalog = {
        "schema": 1,
        "currency": "USD",
        "unit": "per 1M tokens",
        "updated": day.isoformat(),
        "sources": sources,
        "models": generator.entries,
    }
    text = _one_line_each(catalog, ("models",))
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for model in parse_catalog(text.encode(), str(output)).models():
        counts[model.provider].update({model.mode: 1, "aliases": len(model.aliases)})
    output.write_text(text)
    generator.report.show(counts)
    print(f"\n{len(generator.entries)} models, {len(text.encode())} bytes -> {output.name}")


def main() -> None:
    """Run one of the two commands."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--date", type=dt.date.fromisoformat, help="prices in force then")
    parser.add_argument("--output", type=Path, default=CATALOG_FILE)
    parser.add_argument("--extract-limits", type=Path, metavar="LITELLM_JSON")
    parser.add_argument("--litellm-version")
    options = parser.parse_args()
    if options.extract_limits and options.litellm_version:
        extract(options.extract_limits, options.litellm_version)
    elif options.date and not options.extract_limits:
        generate(options.date, options.output)
    else:
        parser.error("give --date, or --extract-limits with --litellm-version")


if __name__ == "__main__":
    main()
