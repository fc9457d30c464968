"""Owns the model catalog in memory: models, their names and their prices as exact integers.

Must not read the catalog file (catalog_parser.py), nor price anything (pricing.py).

Units: rates are nano-USD per million tokens (web searches and images: per 1,000; audio by time:
per hour; characters: per million), multipliers are millionths (1_000_000 = times one).
"""

from typing import NamedTuple

import msgspec

from llmproxy.errors import CatalogError

FURTHER_PRICES = {
    "web_search_1k": ("web_search", "web searches, per 1,000"),
    "input_audio": ("input_audio", "audio input, per million tokens"),
    "input_image": ("input_image", "image input, per million tokens"),
    "output_audio": ("output_audio", "audio output, per million tokens"),
    "output_image": ("output_image", "image output, per million tokens"),
    "cache_read_audio": ("cache_read_audio", "audio from a cache, per million tokens"),
    "image_1k": ("image", "images, per 1,000"),
    "audio_hour": ("audio_hour", "audio, per hour"),
    "characters": ("character", "characters, per million"),
}
"""Prices that few models have: their name in a catalog file, the field of `Rates`, in words."""


class Rates(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What one million tokens of each class cost, in nano-USD; units have a number of their own.

    None: the tokens cost what text does, from a cache too, and the units nothing.
    """

    input: int
    output: int
    cache_read: int
    cache_write_5m: int
    cache_write_1h: int
    web_search: int | None = None
    """Nano-USD per 1,000 searches; None when web searches of this model have no price."""
    input_audio: int | None = None
    input_image: int | None = None
    output_audio: int | None = None
    output_image: int | None = None
    image: int | None = None
    """Nano-USD per 1,000 images, of a model that bills by the image."""
    audio_hour: int | None = None
    """Nano-USD per hour, of a model that bills by the time it listens."""
    character: int | None = None
    """Nano-USD per million characters, of a model that bills by what it is given to say."""
    cache_read_audio: int | None = None


def further_rates(rates: Rates) -> dict[str, int]:
    """Return the prices of `FURTHER_PRICES` that there are, by their name in a catalog file."""
    found = {name: getattr(rates, field) for name, (field, _) in FURTHER_PRICES.items()}
    return {name: rate for name, rate in found.items() if rate is not None}


class Tier(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A cliff: its rates apply to all tokens once the input is above the threshold."""

    above_input_tokens: int
    rates: Rates


class Variant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Prices for certain service tiers or speeds; an empty tuple means any."""

    service_tiers: tuple[str, ...]
    speeds: tuple[str, ...]
    rates: Rates
    tiers: tuple[Tier, ...] = ()


class Prices(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Everything that a charge depends on; holds pin it as canonical JSON."""

    rates: Rates
    tiers: tuple[Tier, ...] = ()
    variants: tuple[Variant, ...] = ()
    geo_micro: dict[str, int] = msgspec.field(default_factory=dict)
    """`inference_geo` of a request -> multiplier in millionths."""
    is_cost_from_provider: bool = False
    """Where an answer reports what the provider bills for it, that is the cost."""

    def canonical_json(self) -> bytes:
        """Return the one JSON text for these prices: no defaults, sorted keys, no spaces."""
        return msgspec.json.encode(self, order="sorted")

    @staticmethod
    def from_json(data: bytes) -> "Prices":
        """Return the prices that `canonical_json` wrote.

        Raises:
            CatalogError: not the JSON of prices, or with fields that this version cannot price.
        """
        try:
            return msgspec.json.decode(data, type=Prices)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            msg = f"Stored prices cannot be read: {error}"
            raise CatalogError(msg) from error


class Model(msgspec.Struct, frozen=True):
    """One model of one provider: its names, limits and prices."""

    provider: str
    id: str
    aliases: tuple[str, ...]
    mode: str
    """`chat`, `embedding`, `image`, …"""
    prices: Prices
    multiplier_micro: int
    """The model's own multiplier in millionths, on everything that it costs."""
    max_input_tokens: int | None
    max_output_tokens: int | None
    reasoning: bool
    prices_until: str | None = None
    """The last day of these prices, such as `2026-12-31`, where it is known that others follow."""


class Contest(NamedTuple):
    """A name that an own entry has as an alias, and an entry of the catalog file has too.

    An id of the file wins it, an alias of the file loses it.
    """

    provider: str
    name: str
    own_id: str
    file_id: str

    @property
    def is_lost(self) -> bool:
        """Whether the name counts no longer for the own entry."""
        return self.name == self.file_id


class Catalog:
    """All models by provider and exact name."""

    def __init__(
        self,
        updated: str,
        models: list[Model],
        own: frozenset[tuple[str, str]] = frozenset(),
        contests: tuple[Contest, ...] = (),
    ) -> None:
        """Index the models.

        Args:
            updated: the date of the catalog file.
            models: all of them.
            own: provider and id of those that the operator has set.
            contests: names that an own entry and one of the file both have.

        Raises:
            CatalogError: two models of a provider share an id or an alias.
        """
        clashes = find_clashes(models)
        if clashes:
            raise CatalogError(clashes[0])
        self.updated = updated
        self.contests = contests
        self._own = own
        self._models = sorted(models, key=lambda model: (model.provider, model.id))
        self._by_name = {
            (model.provider, name): model
            for model in self._models
            for name in (model.id, *model.aliases)
        }

    def find(self, provider: str, model: str) -> Model | None:
        """Return the model with exactly this id or alias, else None."""
        return self._by_name.get((provider, model))

    def models(self, provider: str | None = None) -> list[Model]:
        """Return the models of one provider or of all, sorted by provider and id."""
        if provider is None:
            return list(self._models)
        return [model for model in self._models if model.provider == provider]

    def is_own(self, model: Model) -> bool:
        """Say whether a model's entry is the operator's own, not the file's."""
        return (model.provider, model.id) in self._own

    def overridden(self, own: list[Model], withheld: set[tuple[str, str]]) -> "Catalog":
        """Return this catalog with the operator's models in it, and some left out.

        An id beats an alias, and an own entry one of the file. So a model that the file prices
        costs what the file says, whatever own entry was made when its name was still an alias.
        """
        own_ids = {(model.provider, model.id) for model in own} | withheld
        kept = [model for model in self._models if (model.provider, model.id) not in own_ids]
        file_ids = {(model.provider, model.id) for model in kept}
        own_left = [without_aliases(model, own_ids | file_ids) for model in own]
        taken = own_ids | {(model.provider, name) for model in own_left for name in model.aliases}
        kept_left = [without_aliases(model, taken) for model in kept]
        in_file = Catalog(self.updated, kept)
        contests = [
            Contest(model.provider, name, model.id, found.id)
            for model in own
            for name in model.aliases
            if (model.provider, name) not in own_ids
            and (found := in_file.find(model.provider, name))
        ]
        names = frozenset((model.provider, model.id) for model in own)
        return Catalog(self.updated, [*kept_left, *own_left], names, tuple(contests))


def without_aliases(model: Model, taken: set[tuple[str, str]]) -> Model:
    """Return a model without those aliases that are among the names taken by others."""
    aliases = tuple(name for name in model.aliases if (model.provider, name) not in taken)
    is_whole = aliases == model.aliases
    return model if is_whole else msgspec.structs.replace(model, aliases=aliases)


def find_clashes(models: list[Model]) -> list[str]:
    """Say of each name that two models of a provider share, or that one has twice, whose it is."""
    owners: dict[tuple[str, str], Model] = {}
    clashes: list[str] = []
    for model in models:
        for name in (model.id, *model.aliases):
            other = owners.setdefault((model.provider, name), model)
            if other is not model or (model.id, *model.aliases).count(name) > 1:
                clashes.append(
                    f'model "{model.provider}/{model.id}": the name "{name}" is taken already by '
                    f'"{other.provider}/{other.id}"; names must be unique.'
                )
    return list(dict.fromkeys(clashes))
