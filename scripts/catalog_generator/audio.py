"""Owns the entries of models that listen or speak: by the hour, by the character, or by tokens.

Only those that an endpoint of ours serves: no real time, no conversations in sound. Must not know
litellm, which prices them in other units.
"""

import re
from decimal import Decimal

from scripts.catalog_generator.data import Json, price_text
from scripts.catalog_generator.genai_prices import ModelPrice, is_per_token, price_at

_SERVED = re.compile(r"(?:openai|groq)/.*(?:whisper|transcribe|tts|orpheus)")
_NOT_SERVED = re.compile(r"realtime|live")
_UNITS = {"input_audio_hours": "audio_hour", "input_mchars": "characters"}
"""Units of genai-prices, and what our catalog calls their prices."""


def is_served_audio(key: str, prices: ModelPrice) -> bool:
    """Tell whether a model is one for speech or transcriptions, with a price that we can charge."""
    if not _SERVED.match(key) or _NOT_SERVED.search(key):
        return False
    return is_per_token(prices) or any(price_at(getattr(prices, unit), 0) for unit in _UNITS)


def audio_rates(prices: ModelPrice) -> Json:
    """Return the prices of such a model as they stand in its entry; what has none costs nothing."""
    named = {ours: price_at(getattr(prices, unit), 0) for unit, ours in _UNITS.items()}
    named["input_audio"] = price_at(prices.input_audio_mtok, 0)
    return {
        "in_price": price_text(price_at(prices.input_mtok, 0) or Decimal(0)),
        "out_price": price_text(price_at(prices.output_mtok, 0) or Decimal(0)),
        "prices": {name: price_text(price) for name, price in named.items() if price is not None},
    }
