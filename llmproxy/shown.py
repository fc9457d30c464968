"""Owns how a provider's key and a model are told, field by field, by `--json` and in downloads."""

from collections.abc import Mapping

from llmproxy.catalog import Model, Rates, further_rates
from llmproxy.clock import rfc3339
from llmproxy.key_pool import ProviderKey
from llmproxy.money import format_multiplier, format_rate
from llmproxy.provider_events import Statuses


def key_fields(key: ProviderKey, statuses: Statuses) -> dict[str, object]:
    """Return what is told of a provider's key; its secret is not known."""
    return {
        "name": key.name,
        "masked": key.masked,
        "state": key.state,
        "reason": key.state_reason,
        "upstream_status": statuses.get((key.provider, key.name)),
        "since": rfc3339(key.state_since_ms),
        "until": rfc3339(key.state_until_ms),
        "by": key.state_by,
    }


def model_fields(model: Model, prices: Mapping[str, object], *, is_own: bool) -> dict[str, object]:
    """Return what is told of a model, with its `other_prices` as whoever shows it has them."""
    rates = model.prices.rates
    return {
        "provider": model.provider,
        "id": model.id,
        "aliases": list(model.aliases),
        "mode": model.mode,
        "in_price": format_rate(rates.input),
        "out_price": format_rate(rates.output),
        **prices,
        "multiplier": format_multiplier(model.multiplier_micro),
        "max_input_tokens": model.max_input_tokens,
        "max_output_tokens": model.max_output_tokens,
        "own": is_own,
    }


def other_prices(rates: Rates) -> dict[str, str]:
    """Return the further prices under the names that the catalog file gives them."""
    prices = {
        "cache_read": format_rate(rates.cache_read),
        "cache_write": format_rate(rates.cache_write_5m),
        "cache_write_1h": format_rate(rates.cache_write_1h),
    }
    return prices | {name: format_rate(rate) for name, rate in further_rates(rates).items()}
