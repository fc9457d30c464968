"""Owns the operator's own catalog entries: they stand in the database and survive every update.

An entry is whole and in the form of `model_catalog.json`; it replaces the file's entry of the same
name. Writers are `f(tx, …)`. Must not know which catalog file is in force.
"""

import json
from typing import Any, NamedTuple, TypedDict

import msgspec

from llmproxy.catalog import Catalog, Model, find_clashes, without_aliases
from llmproxy.catalog_parser import parse_entry
from llmproxy.errors import CatalogError, NotFoundError, RefusedError
from llmproxy.storage.database import Tx

Entry = dict[str, Any]


class _Base(TypedDict, total=False):
    """What an entry must be for another to be made of it, right or not."""

    prices: Entry
    aliases: list[str]


class Overrides(NamedTuple):
    """The operator's own models, and what is wrong with entries that cannot be read."""

    models: list[Model]
    """Each with all its aliases, whether or not they count beside those of other entries."""
    broken: dict[tuple[str, str], str]
    """`(provider, id)` -> why. Such a model has no price at all: the file's is not wanted."""


NO_OVERRIDES = Overrides([], {})


def read_overrides(tx: Tx) -> Overrides:
    """Return all own entries as models; one that cannot be read is named, never guessed."""
    models: list[Model] = []
    broken: dict[tuple[str, str], str] = {}
    rows = tx.execute(
        "SELECT provider, model, entry FROM catalog_overrides ORDER BY 1, 2"
    ).fetchall()
    own_ids = {(provider, model_id) for provider, model_id, _ in rows}
    counting: list[Model] = []
    for provider, model_id, text in rows:
        try:
            model = parse_entry(provider, model_id, json.loads(text))
            # An alias that has become the id of another own entry counts no longer.
            counts = without_aliases(model, own_ids)
            clashes = find_clashes([*counting, counts])
        except (CatalogError, ValueError, RecursionError) as error:
            broken[provider, model_id] = str(error)
            continue
        if clashes:
            broken[provider, model_id] = clashes[0]
        else:
            models.append(model)
            counting.append(counts)
    return Overrides(models, broken)


def with_overrides(catalog: Catalog, overrides: Overrides) -> Catalog:
    """Return the file's catalog with the operator's own entries over it."""
    return catalog.overridden(overrides.models, set(overrides.broken))


def find_override(tx: Tx, provider: str, model_id: str) -> Entry | None:
    """Return an own entry as it is written, or None; its fields need not be right.

    Raises:
        RefusedError: it is damaged, so that nothing can be made of it.
    """
    row = tx.execute(
        "SELECT entry FROM catalog_overrides WHERE provider = ? AND model = ?",
        (provider, model_id),
    ).fetchone()
    if row is None:
        return None
    try:
        msgspec.json.decode(row[0], type=_Base)
    except (msgspec.DecodeError, RecursionError) as error:
        msg = f"Your own entry for {provider}/{model_id} is damaged ({error}). Remove it first"
        command = f"llmproxy catalog set {provider} {model_id} --remove"
        raise RefusedError(msg, command=command) from error
    entry: Entry = json.loads(row[0])
    return entry


def edited_entry(base: Entry | None, fields: Entry, prices: dict[str, str]) -> Entry:
    """Return an entry with some fields and some of its `prices` replaced; the others stay."""
    entry = {**(base or {}), **fields}
    if prices:
        entry["prices"] = {**entry.get("prices", {}), **prices}
    return entry


def set_override(tx: Tx, model: Model, entry: Entry, *, actor: str, now_ms: int) -> None:
    """Store an own entry, which has been parsed into `model`; it counts from the commit on."""
    tx.execute(
        """INSERT INTO catalog_overrides(provider, model, entry, actor, updated_at_ms)
           VALUES(:provider, :model, :entry, :actor, :now_ms)
           ON CONFLICT(provider, model) DO UPDATE
           SET entry = :entry, actor = :actor, updated_at_ms = :now_ms""",
        {
            "provider": model.provider,
            "model": model.id,
            "entry": json.dumps(entry, ensure_ascii=False, sort_keys=True),
            "actor": actor,
            "now_ms": now_ms,
        },
    )


def remove_override(tx: Tx, provider: str, model_id: str) -> None:
    """Forget an own entry: the file's counts again, if it has one.

    Raises:
        NotFoundError: there is none.
    """
    found = tx.execute(
        "DELETE FROM catalog_overrides WHERE provider = ? AND model = ?", (provider, model_id)
    )
    if not found.rowcount:
        msg = f"There is no entry of your own for {provider}/{model_id}. See the catalog"
        raise NotFoundError(msg, command="llmproxy catalog list")
