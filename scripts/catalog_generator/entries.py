"""Owns the entries of the catalog: which models get one, under which names, at which prices.

Where the sources disagree, genai-prices stands. Must not read or write files.
"""

import datetime as dt
import json
import re
from collections import defaultdict
from decimal import Decimal

from scripts.catalog_generator.audio import audio_rates, is_served_audio
from scripts.catalog_generator.data import PROVIDERS, Json, price_text
from scripts.catalog_generator.genai_prices import (
    ModelInfo,
    ModelPrice,
    Provider,
    dearest_price,
    exact_names,
    is_own_name,
    is_per_token,
    last_day_of,
    price_at,
    prices_in_force,
    thresholds,
)
from scripts.catalog_generator.litellm import listed_variant, thousands
from scripts.catalog_generator.report import Report

SERVICE_TIERS = ("flex", "priority", "ultrafast")
NOT_TEXT = re.compile(r"tts|transcribe|live|realtime|audio|voice|voxtral|omni|robotics|-ocr-")


class Generator:
    """Builds the entries of the catalog from both sources."""

    def __init__(self, data: Json, day: dt.datetime) -> None:
        """Take the data file and the day whose prices count."""
        self.data = data
        self.day = day
        self.report = Report()
        self.entries: dict[str, Json] = {}

    def add_provider(self, provider: Provider) -> None:
        """Add the text, image and audio models of one provider of genai-prices."""
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
        names = exact_names(model.match) | {model.id}
        names |= set(self.data["extra_aliases"].get(key, ()))
        names |= {name for name in listed if self._same_price(ours, name, prices)}
        names = {name for name in names if is_own_name(name) and provider.find_model(name) is model}
        if not names:
            self.report.left_out["Left out, genai-prices knows no exact name"].append(key)
            return
        self.report.names_refused += [f"{ours}/{name}" for name in listed - names]
        main = model.id if model.id in names else min(names, key=lambda n: (n not in listed, n))
        for group in self._by_limits(ours, main, names):
            entry_id = main if main in group else min(group, key=lambda n: (len(n), n))
            for name in sorted(group):
                self.report.cross_check(f"{ours}/{name}", prices, self._listed(f"{ours}/{name}"))
            self._add_entry(ours, entry_id, group - {entry_id}, model, prices)

    def _reason_to_leave_out(self, key: str, prices: ModelPrice) -> str:
        for reason, keys in self.data["left_out"].items():
            if key in keys:
                return f"Left out by hand, {reason}"
        if is_served_audio(key, prices):
            return ""
        if NOT_TEXT.search(key):
            return "Left out, speech, video, scans or real time"
        if not is_per_token(prices):
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
            Decimal(listed[key]) == price_at(price, 0)
            for price, key in pairs
            if key in listed and price is not None
        )

    def _listed(self, key: str) -> dict[str, str]:
        """Return the prices that litellm lists for a model."""
        prices: dict[str, str] = self.data["litellm"].get(key, {}).get("prices", {})
        return prices

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
        is_audio = is_served_audio(key, prices)
        mode = "audio" if is_audio else known.get("mode") or _guessed_mode(prices)
        entry: Json = {"mode": mode, "aliases": sorted(aliases)}
        limits = {
            "max_input_tokens": known.get("max_input_tokens") or model.context_window,
            "max_output_tokens": known.get("max_output_tokens"),
        }
        entry |= {limit: count for limit, count in limits.items() if count}
        entry["reasoning"] = known.get("reasoning", mode == "chat")
        if not known and mode not in {"embedding", "audio"}:
            self.report.without_limits.append(key)
        if "deprecated" in listed:
            entry["deprecated"] = listed["deprecated"]
        if until := last_day_of(model, self.day):
            entry["prices_until"] = until.isoformat()
            self.report.ending.append(f"{key}: {until}")
        entry |= audio_rates(prices) if is_audio else self._block(key, prices, mode, "")
        entry["prices"] |= self._search_fee(key, prices)
        variants = [] if is_audio else self._variants(key, model, prices, mode)
        entry |= {"variants": variants} if variants else {}
        if "us_multiplier" in listed:
            entry["geo_multiplier"] = {"us": listed["us_multiplier"]}
        if key in self.entries:
            raise SystemExit(f"{key} would be written twice")
        self.entries[key] = entry
        self.report.note_media(key, prices, mode)

    def _search_fee(self, key: str, prices: ModelPrice) -> Json:
        fee = price_at(prices.web_searches_kcount, 0)
        if fee is not None:
            return {"web_search_1k": price_text(fee)}
        listed = self._listed(key).get("web_search_1k")
        if listed is None:
            return {}
        self.report.from_litellm["Web search fee from litellm"].append(f"{key} {listed}")
        return {"web_search_1k": listed}

    def _block(self, key: str, prices: ModelPrice, mode: str, service: str) -> Json:
        """Return the prices of a model or variant: base and tiers."""
        block = self._rates(key, prices, mode, 0, service)
        tiers = [
            {"above_input_tokens": above} | self._rates(key, prices, mode, above, service)
            for above in thresholds(prices)
        ]
        return block | ({"tiers": tiers} if tiers else {})

    def _rates(self, key: str, prices: ModelPrice, mode: str, above: int, service: str) -> Json:
        # Only where the answers tell images from text; else all costs what the dearer of them does.
        tells_images = key.startswith(("openai/", "gemini/"))
        is_image = mode == "image"
        media = is_image and not tells_images
        input_price = dearest_price(prices, above, "input_mtok", "input_image_mtok", media=media)
        output = dearest_price(prices, above, "output_mtok", "output_image_mtok", media=media)
        if input_price is None or (output is None and mode != "embedding"):
            raise SystemExit(f"{key} lacks a price per token")
        cached = ("cache_read_mtok", "cache_image_read_mtok")
        read = dearest_price(prices, above, *cached, media=is_image)
        write = price_at(prices.cache_write_mtok, above)
        write_1h = price_at(prices.cache_write_1h_mtok, above)
        if write is not None and write_1h is None:
            suffix = (f">{thousands(above)}" if above else "") + (service and f"@{service}")
            listed = self._listed(key)
            if f"cache_write_1h{suffix}" in listed:
                write_1h = Decimal(listed[f"cache_write_1h{suffix}"])
            else:
                title = "No price for long cache writes (12 h): the short one will be charged"
                self.report.from_litellm[title].append(f"{key} {suffix}")
        further = {"cache_read": read, "cache_write": write, "cache_write_1h": write_1h}
        if is_image and tells_images:
            further["input_image"] = price_at(prices.input_image_mtok, above)
            further["output_image"] = price_at(prices.output_image_mtok, above)
        if key.startswith("gemini/") and mode == "chat":  # whose answers tell audio from text
            further["input_audio"] = price_at(prices.input_audio_mtok, above)
            further["cache_read_audio"] = price_at(prices.cache_audio_read_mtok, above)
        return {
            "in_price": price_text(input_price),
            "out_price": price_text(output or Decimal(0)),
            "prices": {
                name: price_text(price) for name, price in further.items() if price is not None
            },
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

    def _listed_variant(self, key: str, service: str) -> Json:
        self.report.from_litellm["Service tier priced by litellm"].append(f"{key} {service}")
        return listed_variant(self._listed(key), service)

    def _can_supplement(self, key: str, service: str, base: ModelPrice) -> bool:
        """Tell whether litellm prices a service tier and agrees with the base prices."""
        listed = self._listed(key)
        return (
            {f"input@{service}", f"output@{service}"} <= listed.keys()
            and Decimal(listed.get("input", -1)) == price_at(base.input_mtok, 0)
            and Decimal(listed.get("output", -1)) == price_at(base.output_mtok, 0)
        )


def _guessed_mode(prices: ModelPrice) -> str:
    if prices.output_mtok is None:
        return "embedding"
    return "image" if prices.output_image_mtok is not None else "chat"
