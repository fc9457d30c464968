"""Owns which models a name without a price may have meant. Pure.

A client may ask for such names in a loop: pairs of letters, which are counted at once, choose the
few models that are compared letter by letter.
"""

import difflib
import heapq
from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from llmproxy.catalog import Catalog, Model

NEAREST_MAX = 3
_COMPARED_MAX = 12
_NAME_CHARS_MAX = 100


class Nearest(NamedTuple):
    """Models that may have been meant."""

    here: list[Model]
    """Of the provider that was asked, those that are most alike first."""
    elsewhere: list[Model]
    """Of other providers, those that have exactly this name."""


def find_nearest(
    catalog: Catalog, provider: str, name: str, is_allowed: Callable[[Model], bool]
) -> Nearest:
    """Return up to three models of a provider, as many as it has, and its namesakes elsewhere.

    Args:
        catalog: where to look.
        provider: whose model was asked for.
        name: the name that was not found; capitals are no difference, nor is Google's `models/`
            or the provider's own name before it.
        is_allowed: says of a model whether whoever asks may use it, and so may know of it.
    """
    wanted = _plain(name).removeprefix("models/").removeprefix(f"{provider}/")
    pairs = _pairs(wanted)
    rough: list[tuple[float, str, Model]] = []
    elsewhere: list[Model] = []
    for model in catalog.models():
        names = [_known(each) for each in (model.id, *model.aliases)]
        if model.provider == provider:
            if is_allowed(model):
                likeness, best = max((_likeness(pairs, known), each) for each, known in names)
                rough.append((likeness, best, model))
        elif wanted.removeprefix(f"{model.provider}/") in (each for each, _ in names):
            elsewhere.append(model)
    compared = heapq.nlargest(_COMPARED_MAX, rough, key=lambda one: (one[0], one[2].id))
    matcher = difflib.SequenceMatcher(autojunk=False)
    matcher.set_seq2(wanted)

    def alike(one: tuple[float, str, Model]) -> tuple[float, str]:
        matcher.set_seq1(one[1])
        return matcher.ratio(), one[2].id  # of those that are as much alike, the newest first

    here = [model for *_, model in heapq.nlargest(NEAREST_MAX, compared, key=alike)]
    return Nearest(here, [model for model in elsewhere if is_allowed(model)][:NEAREST_MAX])


@lru_cache(maxsize=8192)
def _known(name: str) -> tuple[str, frozenset[str]]:
    """Return a name of the catalog as it is compared. What clients write is not kept."""
    return _plain(name), _pairs(_plain(name))


def _plain(name: str) -> str:
    return name[:_NAME_CHARS_MAX].casefold()


def _pairs(name: str) -> frozenset[str]:
    return frozenset(map("".join, pairwise(name)))


def _likeness(one: frozenset[str], other: frozenset[str]) -> float:
    """Return which part of the pairs of both is in common: from 0 to 1 (Dice)."""
    return 2 * len(one & other) / (len(one) + len(other) or 1)
