"""Owns the text of the model catalog: `model_catalog.json` turned into exact integer prices.

Parsing is strict, since a typing mistake here would give tokens away: unknown fields, JSON numbers
for money, duplicate keys and duplicate names are refused, every one of them with the model and the
field. The format and its fall-back rules are in `docs/catalog.md`. Must not price anything
(pricing.py).
"""

import json
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

from llmproxy import money
from llmproxy.catalog import (
    FURTHER_PRICES,
    Catalog,
    Model,
    Prices,
    Rates,
    Tier,
    Variant,
    find_clashes,
)
from llmproxy.catalog_fields import MODEL_NAME, WORD, Fields
from llmproxy.errors import CatalogError

SCHEMA = 1
CURRENCY = "USD"
UNIT = "per 1M tokens"
PROBLEMS_MAX = 1000
"""A file with more of them is no catalog; the rest is not worth the memory."""

_FILE_NAME = "model_catalog.json"
_CATALOG_FIELDS = frozenset({"schema", "currency", "unit", "updated", "sources", "models"})
_RATE_FIELDS = frozenset({"in_price", "out_price", "prices"})
_TIER_FIELDS = _RATE_FIELDS | {"above_input_tokens"}
_VARIANT_FIELDS = _RATE_FIELDS | {"when", "tiers"}
_MODEL_FIELDS = _RATE_FIELDS | {
    "mode",
    "aliases",
    "max_input_tokens",
    "max_output_tokens",
    "reasoning",
    "deprecated",
    "prices_until",
    "tiers",
    "variants",
    "geo_multiplier",
    "multiplier",
    "cost_from",
}
_CACHE_FIELDS = frozenset({"cache_read", "cache_write", "cache_write_1h"})
_UNIT_RATES = frozenset({"web_search", "image", "audio_hour", "character"})
"""Of what is not a token."""
_PRICE_FIELDS = _CACHE_FIELDS | FURTHER_PRICES.keys()
_COST_FROM = ("tokens", "provider")
_WHEN_FIELDS = frozenset({"service_tier", "speed"})


class Document(NamedTuple):
    """A catalog file: its entries as they are written, and as models those without a mistake."""

    updated: str
    entries: dict[str, Any]
    models: list[Model]
    problems: list[str]

    def catalog(self) -> Catalog:
        """Return the catalog of a document without problems."""
        return Catalog(self.updated, self.models)


def load_catalog(path: Path | None) -> Catalog:
    """Read a catalog file; None takes the one that came with the program.

    Raises:
        CatalogError: the file cannot be read or is not a valid catalog.
    """
    return load_document(path).catalog()


def load_document(path: Path | None) -> Document:
    """Read a catalog file as `load_catalog` does, and keep its entries as they are written.

    Raises:
        CatalogError: the file cannot be read or is not a valid catalog.
    """
    file = path or packaged_path()
    return valid_document(read_catalog_file(file), str(file))


def read_catalog_file(file: Path) -> bytes:
    """Return the bytes of a catalog file.

    Raises:
        CatalogError: it cannot be read.
    """
    try:
        return file.read_bytes()
    except OSError as error:
        msg = f"The model catalog {file} cannot be read: {error.strerror}."
        raise CatalogError(msg) from error


def packaged_path() -> Path:
    """Return where the catalog is that came with the program."""
    inside = Path(__file__).with_name(_FILE_NAME)
    return inside if inside.exists() else Path(__file__).parents[1] / _FILE_NAME


def parse_catalog(data: bytes, source: str) -> Catalog:
    """Return the catalog in `data`; `source` is named in every error.

    Raises:
        CatalogError: not JSON, or anything in it is unknown, missing, duplicate or inexact.
    """
    return valid_document(data, source).catalog()


def valid_document(data: bytes, source: str) -> Document:
    """Return the document in `data`; `source` is named in the error.

    Raises:
        CatalogError: it has problems: the first one, and how many more there are.
    """
    document = parse_document(data)
    if document.problems:
        first, *rest = document.problems
        more = f" And {len(rest):,} more: llmproxy catalog check FILE" if rest else ""
        msg = f"{source}: {first}{more}"
        raise CatalogError(msg)
    return document


def parse_document(data: bytes) -> Document:
    """Return the document in `data` with all its problems, each with its model and field."""
    problems: list[str] = []
    root = Fields(_json_object(data, problems), "the file", problems)
    if problems and not root.value:
        return Document("", {}, [], problems)
    updated = _read_head(root)
    entries = root.members("models")
    if "models" not in root.value:
        root.note("is missing", "models")
    reader = _Reader(problems)
    models = [model for key, entry in entries.items() if (model := reader.model(key, entry))]
    problems += find_clashes(models)
    return Document(updated, entries, models, problems[:PROBLEMS_MAX])


def parse_entry(provider: str, model_id: str, entry: object) -> Model:
    """Return the model that one entry describes.

    Raises:
        CatalogError: there is a mistake in it; every one is named.
    """
    problems: list[str] = []
    model = _Reader(problems).model(f"{provider}/{model_id}", entry)
    problems += find_clashes([model] if model else [])
    if model is None or problems:
        raise CatalogError(" ".join(problems))
    return model


def _json_object(data: bytes, problems: list[str]) -> dict[str, Any]:
    """Decode a JSON object; note duplicate keys, of which json.loads would take the last.

    Numbers with a fraction are kept as Decimal, for the field that they stand in to be named.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) < len(pairs):
            names = [name for name, _ in pairs]
            name = next(name for name in names if names.count(name) > 1)
            problems.append(f'"{name:.200}": appears twice in one object.')
        return value

    try:
        value = json.loads(
            data.decode(), object_pairs_hook=unique, parse_float=Decimal, parse_constant=Decimal
        )
    except (ValueError, RecursionError) as error:
        problems.append(f"not valid JSON: {error}")
        return {}
    if not isinstance(value, dict):
        problems.append("the file: must be a JSON object.")
        return {}
    return value


def _read_head(root: Fields) -> str:
    """Check everything but the models; return the date of the catalog."""
    root.only(_CATALOG_FIELDS)
    for name, expected in (("schema", SCHEMA), ("currency", CURRENCY), ("unit", UNIT)):
        value = root.value.get(name)
        if type(value) is not type(expected) or value != expected:
            root.note(f"must be {json.dumps(expected)}", name)
    if not all(isinstance(value, str) for value in root.members("sources").values()):
        root.note("must hold strings", "sources")
    return root.date("updated", "")


class _Reader:
    """Reads models; remembers the texts that it has parsed, since few prices are distinct."""

    def __init__(self, problems: list[str]) -> None:
        self._problems = problems
        self._rate_by_text: dict[str, int] = {}

    def model(self, key: str, entry: object) -> Model | None:
        """Return a model, or None after noting what is wrong with it."""
        known = len(self._problems)
        provider, _, model_id = key.partition("/")
        fields = Fields({}, f'model "{key:.200}"', self._problems)
        if not WORD.fullmatch(provider) or not MODEL_NAME.fullmatch(model_id):
            fields.note('the key must be "provider/model-id"')
        if isinstance(entry, dict):
            fields.value = entry
        else:
            fields.note("must be a JSON object")
            return None
        fields.only(_MODEL_FIELDS)
        for name in ("deprecated", "prices_until"):
            fields.date(name, "2000-01-01")
        if not isinstance(reasoning := entry.get("reasoning", False), bool):
            fields.note("must be true or false", "reasoning")
        model = Model(
            provider=provider,
            id=model_id,
            aliases=fields.strings("aliases"),
            mode=fields.text("mode", "chat", WORD, 'word such as "chat"'),
            prices=self._prices(provider, fields),
            multiplier_micro=fields.multiplier(entry.get("multiplier", "1"), "multiplier"),
            max_input_tokens=fields.count("max_input_tokens"),
            max_output_tokens=fields.count("max_output_tokens"),
            reasoning=reasoning,
            prices_until=entry.get("prices_until"),
        )
        return model if len(self._problems) == known else None

    def _prices(self, provider: str, fields: Fields) -> Prices:
        rates = self._rates(provider, fields, None)
        variants = tuple(
            self._variant(provider, variant, rates)
            for variant in fields.objects("variants", "variant")
        )
        cost_from = fields.value.get("cost_from", "tokens")
        if cost_from not in _COST_FROM:
            fields.note('must be "tokens" or "provider"', "cost_from")
        if cost_from == "provider" and not (rates.input or rates.output):
            fields.note("needs a price above zero: that is what is held for a request", "cost_from")
        for number, name in _overlaps(variants):
            fields.inside({}, f"variant {number}").note(f'"{name}" has a variant already')
        return Prices(
            rates=rates,
            tiers=self._tiers(provider, fields, rates),
            # What names both goes before what names one: else it would never count.
            variants=tuple(
                sorted(variants, key=lambda one: not (one.service_tiers and one.speeds))
            ),
            is_cost_from_provider=cost_from == "provider",
            geo_micro={
                geo: fields.multiplier(text, f"geo_multiplier.{geo:.200}")
                for geo, text in fields.words("geo_multiplier").items()
            },
        )

    def _variant(self, provider: str, fields: Fields, base: Rates) -> Variant:
        fields.only(_VARIANT_FIELDS)
        when = fields.inside(fields.members("when"), 'field "when"')
        when.only(_WHEN_FIELDS)
        if not when.value.get("service_tier") and not when.value.get("speed"):
            when.note("must name a service_tier or a speed")
        rates = self._rates(provider, fields, base)
        return Variant(
            service_tiers=when.strings("service_tier"),
            speeds=when.strings("speed"),
            rates=rates,
            tiers=self._tiers(provider, fields, rates),
        )

    def _tiers(self, provider: str, fields: Fields, outer: Rates) -> tuple[Tier, ...]:
        tiers: list[Tier] = []
        for tier in fields.objects("tiers", "tier"):
            tier.only(_TIER_FIELDS)
            above = tier.count("above_input_tokens")
            if tier.value.get("above_input_tokens") is None:
                tier.note("is missing", "above_input_tokens")
            if above and tiers and above <= tiers[-1].above_input_tokens:
                tier.note("must be above that of the last tier", "above_input_tokens")
            tiers.append(Tier(above or 0, self._rates(provider, tier, outer)))
        return tuple(tiers)

    def _rates(self, provider: str, fields: Fields, outer: Rates | None) -> Rates:
        """Return the rates of a model, tier or variant; what is missing falls back inside it.

        Only the prices of units, which no tier changes, are taken over from the outer rates.
        """
        prices = Fields(fields.members("prices"), fields.where, self._problems)
        prices.only(_PRICE_FIELDS, "prices")
        base = {
            name: self._rate(fields, fields.value[name], name)
            for name in ("in_price", "out_price")
            if name in fields.value
        }
        for name in ("in_price", "out_price"):
            if name not in base:
                fields.note("is missing", name)
        rate_by_name = {
            name: self._rate(fields, text, f"prices.{name}") for name, text in prices.value.items()
        }
        input_rate = base.get("in_price", 0)
        write = rate_by_name.get("cache_write")
        write_1h = rate_by_name.get("cache_write_1h")
        if provider == "anthropic":
            if write is None:
                write = _five_quarters(input_rate, fields)
            if write_1h is None:
                write_1h = 2 * input_rate
        write = input_rate if write is None else write
        further = {
            field: rate_by_name.get(
                name, getattr(outer, field, None) if field in _UNIT_RATES else None
            )
            for name, (field, _) in FURTHER_PRICES.items()
        }
        return Rates(
            input=input_rate,
            output=base.get("out_price", 0),
            cache_read=rate_by_name.get("cache_read", input_rate),
            cache_write_5m=write,
            cache_write_1h=write if write_1h is None else write_1h,
            **further,
        )

    def _rate(self, fields: Fields, text: object, name: str) -> int:
        rate = self._rate_by_text.get(text) if isinstance(text, str) else None
        if rate is None:
            known = len(self._problems)
            what = "prices are decimal strings such as '2.5'"
            rate = fields.exact(text, name, money.parse_rate, what)
            if isinstance(text, str) and len(self._problems) == known:
                self._rate_by_text[text] = rate
        return rate


def _five_quarters(rate: int, fields: Fields) -> int:
    product = rate * 5
    if product % 4:
        what = "is missing, and 1.25 times in_price has more than 9 decimals; write it out"
        fields.note(what, "prices.cache_write")
    return product // 4


def _overlaps(variants: tuple[Variant, ...]) -> Iterable[tuple[int, str]]:
    """Yield number and name of each variant that would never count: another is there already."""
    seen: set[tuple[str, str]] = set()
    for number, variant in enumerate(variants, 1):
        for service_tier in variant.service_tiers or ("",):
            for speed in variant.speeds or ("",):
                if (service_tier, speed) in seen:
                    yield number, " ".join(filter(None, (service_tier, speed)))
                seen.add((service_tier, speed))
