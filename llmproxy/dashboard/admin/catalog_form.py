"""Owns the form in which an operator changes a model's prices: what it may have, what it means.

What is left empty stays as it is in the catalog, as with an option of `catalog set` not given.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from llmproxy.catalog import FURTHER_PRICES
from llmproxy.catalog_editing import Edit
from llmproxy.catalog_fields import MODEL_NAME, WORD
from llmproxy.dashboard.errors import FormError

FIELDS = {
    "in_price": "Input",
    "out_price": "Output",
    "multiplier": "Multiplier",
    "mode": "Mode",
}
CACHE = {
    "cache_read": "Read from a cache",
    "cache_write": "Written to a cache for 5 min",
    "cache_write_1h": "Written for 1 h",
}
FURTHER = {
    "web_search_1k": "A thousand web searches",
    "input_audio": "Audio input",
    "input_image": "Image input",
    "output_audio": "Audio output",
    "output_image": "Image output",
    "cache_read_audio": "Audio from a cache",
    "image_1k": "A thousand images",
    "audio_hour": "An hour of audio",
    "characters": "A million characters",
}
RATE_OF = {name: field for name, (field, _) in FURTHER_PRICES.items()}
"""The field of `Rates` behind each of them."""
PRICES = {**CACHE, **FURTHER}
COUNTS = {"max_input_tokens": "Input up to", "max_output_tokens": "Output up to"}
CHOICES = {"": "As it is", "yes": "Yes", "no": "No"}
NAMES = (*FIELDS, *PRICES, *COUNTS, "reasoning", "aliases", "flat")
TEXT_CHARS_MAX = 60
ALIASES_MAX = 20
_COUNT = re.compile(r"[1-9]\d{0,11}", re.ASCII)


class Wanted(NamedTuple):
    """A model, and what is to be different about it."""

    provider: str
    model_id: str
    edit: Edit


def read_model(form: Mapping[str, str]) -> tuple[str, str]:
    """Return provider and id of the model that a form is about.

    Raises:
        FormError: it names none.
    """
    provider, model_id = form.get("provider", ""), form.get("model", "")
    if not WORD.fullmatch(provider):
        raise FormError("Name the provider, such as openai.")
    if not MODEL_NAME.fullmatch(model_id):
        raise FormError("Name the model by its id, such as gpt-4o; it has no spaces.")
    return provider, model_id


def read_wanted(form: Mapping[str, str]) -> Wanted:
    """Return what a form asks for. Whether it is a right entry, the catalog's parser says.

    Raises:
        FormError: a field cannot be taken, or there is nothing to change.
    """
    provider, model_id = read_model(form)
    fields: dict[str, Any] = {name: form[name] for name in FIELDS if form.get(name)}
    prices = {name: form[name] for name in PRICES if form.get(name)}
    for name, text in {**fields, **prices}.items():
        if len(text) > TEXT_CHARS_MAX:
            raise FormError(f"{ {**FIELDS, **PRICES}[name] }: that is too long.")
    for name, label in COUNTS.items():
        if text := form.get(name):
            if not _COUNT.fullmatch(text):
                raise FormError(f"{label}: write a whole number from 1, or leave it empty.")
            fields[name] = int(text)
    reasoning = form.get("reasoning", "")
    if reasoning not in CHOICES:
        raise FormError("Choose whether it reasons.")
    if reasoning:
        fields["reasoning"] = reasoning == "yes"
    edit = Edit(fields, prices, _aliases(form.get("aliases", "")), is_flat=bool(form.get("flat")))
    if not edit.is_any:
        raise FormError("Fill in what is to be changed.")
    return Wanted(provider, model_id, edit)


def _aliases(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(each.strip() for each in text.split(",") if each.strip()))
    if len(names) > ALIASES_MAX or not all(MODEL_NAME.fullmatch(name) for name in names):
        raise FormError("Further names: write them with commas between, without spaces.")
    return names
