"""Owns the text of the model catalog: `model_catalog.json` turned into exact integer prices.

Parsing is strict, since a typing mistake here would give tokens away: unknown fields, JSON numbers
for money, duplicate keys and duplicate names are refused with the source, the model and the field.
The format and its fall-back rules are in `docs/catalog.md`. Must not price anything (pricing.py).
"""

import json
import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, NoReturn

from llmproxy import money
from llmproxy.catalog import Catalog, Model, Prices, Rates, Tier, Variant
from llmproxy.errors import CatalogError, MoneyError

SCHEMA = 1
CURRENCY = "USD"
UNIT = "per 1M tokens"

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
    "tiers",
    "variants",
    "geo_multiplier",
    "multiplier",
}
_PRICE_FIELDS = frozenset({"cache_read", "cache_write", "cache_write_1h", "web_search_1k"})
_WHEN_FIELDS = frozenset({"service_tier", "speed"})
_PROVIDER = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_MODEL = re.compile(r"[!-~]{1,200}")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


def load_catalog(path: Path | None) -> Catalog:
    """Read a catalog file; None takes the one that came with the program.

    Raises:
        CatalogError: the file cannot be read or is not a valid catalog.
    """
    file = path or _packaged_path()
    try:
        data = file.read_bytes()
    except OSError as error:
        msg = f"The model catalog {file} cannot be read: {error.strerror}."
        raise CatalogError(msg) from error
    return parse_catalog(data, str(file))


def parse_catalog(data: bytes, source: str) -> Catalog:
    """Return the catalog in `data`; `source` is named in every error.

    Raises:
        CatalogError: not JSON, or anything in it is unknown, missing, duplicate or inexact.
    """
    try:
        return _catalog(_json_object(data))
    except CatalogError as error:
        msg = f"{source}: {error}"
        raise CatalogError(msg) from error


def _packaged_path() -> Path:
    inside = Path(__file__).with_name(_FILE_NAME)
    return inside if inside.exists() else Path(__file__).parents[1] / _FILE_NAME


def _json_object(data: bytes) -> dict[str, Any]:
    """Decode a JSON object; refuse duplicate keys, of which json.loads would take the last.

    Numbers with a fraction are kept as Decimal, for the field that they stand in to be named.
    """
    try:
        value = json.loads(
            data.decode(),
            object_pairs_hook=_unique_object,
            parse_float=Decimal,
            parse_constant=Decimal,
        )
    except (ValueError, RecursionError) as error:
        msg = f"not valid JSON: {error}"
        raise CatalogError(msg) from error
    if not isinstance(value, dict):
        _fail("the file", "must be a JSON object")
    return value


def _unique_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        name = next(name for name in names if names.count(name) > 1)
        _fail(f'"{name:.200}"', "appears twice in one object")
    return value


def _fail(where: str, what: str) -> NoReturn:
    msg = f"{where}: {what}."
    raise CatalogError(msg)


def _catalog(root: dict[str, Any]) -> Catalog:
    _only(root, _CATALOG_FIELDS, "the file")
    for name, expected in (("schema", SCHEMA), ("currency", CURRENCY), ("unit", UNIT)):
        value = root.get(name)
        if type(value) is not type(expected) or value != expected:
            _fail(f'field "{name}"', f"must be {json.dumps(expected)}")
    updated = root.get("updated")
    if not isinstance(updated, str) or not _DATE.fullmatch(updated):
        _fail('field "updated"', 'must be a date such as "2026-11-23"')
    sources = _object(root, "sources", "the file")
    if not all(isinstance(value, str) for value in sources.values()):
        _fail('field "sources"', "must hold strings")
    if "models" not in root:
        _fail('field "models"', "is missing")
    reader = _Reader()
    models = [
        reader.model(key, value) for key, value in _object(root, "models", "the file").items()
    ]
    return Catalog(updated, models)


def _only(value: dict[str, Any], known: frozenset[str], where: str) -> None:
    if value.keys() <= known:
        return
    name = next(name for name in value if name not in known)
    _fail(where, f'unknown field "{name:.200}"; known are {", ".join(sorted(known))}')


def _object(value: dict[str, Any], name: str, where: str) -> dict[str, Any]:
    item = value.get(name, {})
    if not isinstance(item, dict):
        _fail(f'{where}, field "{name}"', "must be a JSON object")
    return item


def _objects(value: dict[str, Any], name: str, where: str) -> list[dict[str, Any]]:
    items = value.get(name, [])
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        _fail(f'{where}, field "{name}"', "must be a list of JSON objects")
    return items


def _strings(value: dict[str, Any], name: str, where: str) -> tuple[str, ...]:
    items = value.get(name, [])
    if not isinstance(items, list) or not all(
        isinstance(item, str) and _MODEL.fullmatch(item) for item in items
    ):
        _fail(f'{where}, field "{name}"', "must be a list of strings without spaces")
    return tuple(items)


def _count(value: dict[str, Any], name: str, where: str) -> int | None:
    number = value.get(name)
    if number is None:
        return None
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        _fail(f'{where}, field "{name}"', "must be a whole number above 0")
    return number


class _Reader:
    """Reads models; remembers the texts that it has parsed, since few prices are distinct."""

    def __init__(self) -> None:
        self._rate_by_text: dict[str, int] = {}

    def model(self, key: str, value: object) -> Model:
        provider, _, model_id = key.partition("/")
        where = f'model "{key:.200}"'
        if not _PROVIDER.fullmatch(provider) or not _MODEL.fullmatch(model_id):
            _fail(where, 'the key must be "provider/model-id"')
        if not isinstance(value, dict):
            _fail(where, "must be a JSON object")
        _only(value, _MODEL_FIELDS, where)
        mode = value.get("mode", "chat")
        if not isinstance(mode, str) or not _PROVIDER.fullmatch(mode):
            _fail(f'{where}, field "mode"', 'must be a word such as "chat"')
        deprecated = value.get("deprecated", "2000-01-01")
        if not isinstance(deprecated, str) or not _DATE.fullmatch(deprecated):
            _fail(f'{where}, field "deprecated"', 'must be a date such as "2026-11-23"')
        if not isinstance(reasoning := value.get("reasoning", False), bool):
            _fail(f'{where}, field "reasoning"', "must be true or false")
        multiplier = value.get("multiplier", "1")
        return Model(
            provider=provider,
            id=model_id,
            aliases=_strings(value, "aliases", where),
            mode=mode,
            prices=self._prices(provider, value, where),
            multiplier_micro=_multiplier(multiplier, f'{where}, field "multiplier"'),
            max_input_tokens=_count(value, "max_input_tokens", where),
            max_output_tokens=_count(value, "max_output_tokens", where),
            reasoning=reasoning,
        )

    def _prices(self, provider: str, value: dict[str, Any], where: str) -> Prices:
        rates = self._rates(provider, value, where, None)
        variants = tuple(
            self._variant(provider, item, f"{where}, variant {number}", rates.web_search)
            for number, item in enumerate(_objects(value, "variants", where), 1)
        )
        _refuse_overlap(variants, where)
        return Prices(
            rates=rates,
            tiers=self._tiers(provider, value, where, rates.web_search),
            variants=variants,
            geo_micro={
                geo: _multiplier(text, f'{where}, field "geo_multiplier.{geo:.200}"')
                for geo, text in _object(value, "geo_multiplier", where).items()
            },
        )

    def _variant(
        self, provider: str, value: dict[str, Any], where: str, web_search: int | None
    ) -> Variant:
        _only(value, _VARIANT_FIELDS, where)
        when = _object(value, "when", where)
        _only(when, _WHEN_FIELDS, f'{where}, field "when"')
        service_tiers = _strings(when, "service_tier", where)
        speeds = _strings(when, "speed", where)
        if not service_tiers and not speeds:
            _fail(f'{where}, field "when"', "must name a service_tier or a speed")
        rates = self._rates(provider, value, where, web_search)
        tiers = self._tiers(provider, value, where, rates.web_search)
        return Variant(service_tiers=service_tiers, speeds=speeds, rates=rates, tiers=tiers)

    def _tiers(
        self, provider: str, value: dict[str, Any], where: str, web_search: int | None
    ) -> tuple[Tier, ...]:
        tiers: list[Tier] = []
        for number, item in enumerate(_objects(value, "tiers", where), 1):
            here = f"{where}, tier {number}"
            _only(item, _TIER_FIELDS, here)
            above = _count(item, "above_input_tokens", here)
            if above is None:
                _fail(f'{here}, field "above_input_tokens"', "is missing")
            if tiers and above <= tiers[-1].above_input_tokens:
                _fail(f'{here}, field "above_input_tokens"', "must be above that of the last tier")
            tiers.append(Tier(above, self._rates(provider, item, here, web_search)))
        return tuple(tiers)

    def _rates(
        self, provider: str, value: dict[str, Any], where: str, web_search: int | None
    ) -> Rates:
        """Return the rates of a model, tier or variant; what is missing falls back inside it.

        Only the fee per web search, which no tier changes, is taken over from the outer rates.
        """
        prices = _object(value, "prices", where)
        _only(prices, _PRICE_FIELDS, f'{where}, field "prices"')
        for name in ("in_price", "out_price"):
            if name not in value:
                _fail(f'{where}, field "{name}"', "is missing")
        input_rate = self._rate(value["in_price"], f'{where}, field "in_price"')
        rate_by_name = {
            name: self._rate(text, f'{where}, field "prices.{name}"')
            for name, text in prices.items()
        }
        write = rate_by_name.get("cache_write")
        write_1h = rate_by_name.get("cache_write_1h")
        if provider == "anthropic":
            if write is None:
                write = _five_quarters(input_rate, where)
            if write_1h is None:
                write_1h = 2 * input_rate
        write = input_rate if write is None else write
        return Rates(
            input=input_rate,
            output=self._rate(value["out_price"], f'{where}, field "out_price"'),
            cache_read=rate_by_name.get("cache_read", input_rate),
            cache_write_5m=write,
            cache_write_1h=write if write_1h is None else write_1h,
            web_search=rate_by_name.get("web_search_1k", web_search),
        )

    def _rate(self, text: object, where: str) -> int:
        if not isinstance(text, str):
            _fail(where, f"prices are decimal strings such as '2.5', not {_json_kind(text)}")
        rate = self._rate_by_text.get(text)
        if rate is None:
            rate = _exact(money.parse_rate, text, where)
            self._rate_by_text[text] = rate
        return rate


def _five_quarters(rate: int, where: str) -> int:
    product = rate * 5
    if product % 4:
        _fail(
            f'{where}, field "prices.cache_write"',
            "is missing, and 1.25 times in_price has more than 9 decimals; write it out",
        )
    return product // 4


def _multiplier(text: object, where: str) -> int:
    if not isinstance(text, str):
        _fail(where, f"multipliers are decimal strings such as '1.1', not {_json_kind(text)}")
    return _exact(money.parse_multiplier, text, where)


def _exact(parse: Callable[[str], int], text: str, where: str) -> int:
    try:
        return parse(text)
    except MoneyError as error:
        msg = f"{where}: {error}"
        raise CatalogError(msg) from error


def _json_kind(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    return "a JSON number" if isinstance(value, int | Decimal) else "a list or an object"


def _refuse_overlap(variants: tuple[Variant, ...], where: str) -> None:
    """Refuse two variants for the same service tier and speed: the second would never count."""
    seen: set[tuple[str, str]] = set()
    for number, variant in enumerate(variants, 1):
        for service_tier in variant.service_tiers or ("",):
            for speed in variant.speeds or ("",):
                if (service_tier, speed) in seen:
                    names = " ".join(filter(None, (service_tier, speed)))
                    _fail(f"{where}, variant {number}", f'"{names}" has a variant already')
                seen.add((service_tier, speed))
