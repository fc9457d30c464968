"""Owns what it takes to change a model's prices: what would differ, and whether it may be done.

A plan is made first; nothing is written by that. Writers are `f(tx, …)`. Must not know which
catalog file is in force.
"""

from shlex import quote
from typing import Any, NamedTuple

from llmproxy.catalog import Catalog, Model
from llmproxy.catalog_changes import JUMP_MAX, FieldChange, changed_fields
from llmproxy.catalog_overrides import (
    Entry,
    edited_entry,
    find_override,
    read_overrides,
    remove_override,
    set_override,
    with_overrides,
)
from llmproxy.catalog_parser import Document, parse_entry
from llmproxy.errors import CatalogError, RefusedError
from llmproxy.storage.database import Tx

_PRICES = ("in_price", "out_price")
_DIMENSIONS = frozenset({"tiers", "variants", "geo_multiplier"})


class NewModelError(CatalogError):
    """A model that is not in the catalog yet needs both prices."""


class Edit(NamedTuple):
    """What is to be different about an entry; texts as the catalog file has them."""

    fields: dict[str, Any]
    prices: dict[str, str]
    aliases: tuple[str, ...] = ()
    """Further names, beside those that it has."""
    dropped_aliases: tuple[str, ...] = ()
    is_flat: bool = False
    """It loses its prices by tier, speed, region and input size."""

    @property
    def is_any(self) -> bool:
        """Whether it changes anything."""
        return any(self)

    def applied_to(self, base: Entry | None) -> Entry:
        """Return the new entry."""
        dropped = _DIMENSIONS if self.is_flat else frozenset()
        kept = {name: value for name, value in (base or {}).items() if name not in dropped}
        if self.fields.keys() & set(_PRICES):
            kept.pop("prices_until", None)  # it is not of the price that is set now
        fields = dict(self.fields)
        if self.aliases or self.dropped_aliases:
            names = dict.fromkeys([*kept.get("aliases", []), *self.aliases])
            fields["aliases"] = [name for name in names if name not in self.dropped_aliases]
        return edited_entry(kept, fields, self.prices)


class Plan(NamedTuple):
    """What an edit would come to."""

    before: Model | None
    after: Model
    entry: Entry

    @property
    def changes(self) -> list[FieldChange]:
        """What would differ; of a new model, its two prices."""
        return list(changed_fields(self.before, self.after))

    def refuse_jumps(self, advice: str) -> None:
        """Refuse prices that change more than JUMP_MAX times; the advice is the message's end.

        Raises:
            RefusedError: there is one.
        """
        jumps = [field for field in self.changes if field.is_jump]
        if self.before is not None and jumps:
            first = jumps[0]
            msg = (
                f"{first.name} of {self.after.provider}/{self.after.id} would change from "
                f"{first.old} to {first.new}, more than {JUMP_MAX} times. {advice}"
            )
            raise RefusedError(msg)


def in_force(tx: Tx, document: Document) -> Catalog:
    """Return the catalog of a file with the operator's own entries over it."""
    return with_overrides(document.catalog(), read_overrides(tx))


def make_plan(tx: Tx, document: Document, provider: str, model_id: str, edit: Edit) -> Plan:
    """Return what an edit would come to.

    Raises:
        RefusedError: the model is another's alias, a name in it belongs to another, a name to be
            dropped is none of it, or the own entry that it has is damaged.
        NewModelError: it is not in the catalog yet, and a price is missing.
        CatalogError: the entry would not be right; the message names every mistake.
    """
    catalog = in_force(tx, document)
    before = catalog.find(provider, model_id)
    _refuse_alias(before, model_id)
    base: Entry | None = document.entries.get(f"{provider}/{model_id}")
    base = find_override(tx, provider, model_id) or base
    if base is None and not edit.fields.keys() >= set(_PRICES):
        msg = "It is not in the catalog yet: give both prices."
        raise NewModelError(msg)
    _refuse_unknown_names(edit.dropped_aliases, base, f"{provider}/{model_id}")
    entry = edit.applied_to(_without_lost_names(base, catalog, provider, model_id))
    model = parse_entry(provider, model_id, entry)
    _refuse_taken_names(catalog, model)
    return Plan(before, model, entry)


def afterwards(tx: Tx, document: Document, plan: Plan) -> Catalog:
    """Return the catalog that would be in force once a plan is carried out."""
    return in_force(tx, document).overridden([plan.after], set())


def carry_out(tx: Tx, plan: Plan, *, actor: str, now_ms: int) -> None:
    """Store the own entry that was planned; it counts from the commit on."""
    set_override(tx, plan.after, plan.entry, actor=actor, now_ms=now_ms)


def take_back(tx: Tx, document: Document, provider: str, model_id: str) -> Model | None:
    """Forget an own entry; return the model as it is then, None when it has no price any more.

    Raises:
        NotFoundError: there is none.
    """
    remove_override(tx, provider, model_id)
    return in_force(tx, document).find(provider, model_id)


def in_words(provider: str, model_id: str, edit: Edit) -> str:
    """Return an edit as the arguments of `catalog set`."""
    words = [quote(provider), quote(model_id)]
    for name, value in {**edit.fields, **edit.prices}.items():
        option = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        else:
            words.append(f"--{option} {quote(str(value))}")
    words += [f"--alias {quote(name)}" for name in edit.aliases]
    words += [f"--drop-alias {quote(name)}" for name in edit.dropped_aliases]
    return " ".join([*words, *(["--flat"] if edit.is_flat else [])])


def _refuse_alias(found: Model | None, name: str) -> None:
    if found is not None and found.id != name:
        msg = f"{name} is another name of {found.provider}/{found.id}. Set that one"
        raise RefusedError(msg, command=f"llmproxy catalog set {found.provider} {found.id}")


def _without_lost_names(
    base: Entry | None, catalog: Catalog, provider: str, model_id: str
) -> Entry | None:
    """Return an entry without the aliases that are another model's now: they count no longer."""
    if base is None or not base.get("aliases"):
        return base
    owners = {name: catalog.find(provider, name) for name in base["aliases"]}
    kept = [name for name, owner in owners.items() if owner is None or owner.id == model_id]
    return {**base, "aliases": kept}


def _refuse_unknown_names(names: tuple[str, ...], base: Entry | None, of: str) -> None:
    for name in names:
        if name not in (base or {}).get("aliases", []):
            msg = f"{name!r:.120} is no other name of {of}."
            raise RefusedError(msg)


def _refuse_taken_names(catalog: Catalog, model: Model) -> None:
    for name in model.aliases:
        other = catalog.find(model.provider, name)
        if other is not None and other.id != model.id:
            msg = f"The name {name!r:.120} belongs to {other.provider}/{other.id} already."
            raise RefusedError(msg)
