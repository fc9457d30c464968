"""Figures out of samples. Pure."""

from collections.abc import Sequence

SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}
SAMPLES_ABOVE_MIN = 5

Quantiles = dict[str, int | None]


def quantiles_us(samples_s: Sequence[float]) -> Quantiles:
    """Return the percentiles of times in seconds as whole microseconds.

    One that fewer than five samples lie above means little, and is None.
    """
    ordered = sorted(samples_s)
    found: Quantiles = {}
    for name, share in SHARES.items():
        index = int(share * len(ordered))
        is_known = len(ordered) - index > SAMPLES_ABOVE_MIN
        found[name] = round(ordered[index] * 1e6) if is_known else None
    return found


def added_us(through: Quantiles, direct: Quantiles) -> Quantiles:
    """Return by how much each percentile is larger; None where one of both is not known."""
    return {
        name: None if value is None or (base := direct[name]) is None else value - base
        for name, value in through.items()
    }
