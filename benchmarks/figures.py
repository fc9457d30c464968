"""Figures out of samples. Pure."""

import bisect
from collections.abc import Sequence

SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}
SAMPLES_ABOVE_MIN = 5
SLICE_S = 0.5
CALM_SHARE = 0.25
SLICES_MIN = 4

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


def calm_us(
    used: Sequence[tuple[float, float]], progress: Sequence[Sequence[float]]
) -> float | None:
    """Return the CPU time per answer, in microseconds, in the calmer part of a run.

    What else the machine does can only make a request dearer, and comes and goes: of slices of
    half a second a quarter is cheaper than this one. None for runs of less than four slices.

    Args:
        used: CPU time in seconds so far, at moments in seconds.
        progress: answers so far, at moments of the same clock.
    """
    if not used or not progress:
        return None
    begins, ends = (max(used[0][0], progress[0][0]), min(used[-1][0], progress[-1][0]))
    costs = []
    for number in range(int((ends - begins) / SLICE_S)):
        start_s = begins + number * SLICE_S
        answers = _between(progress, start_s + SLICE_S) - _between(progress, start_s)
        if answers > 0:
            cpu_s = _between(used, start_s + SLICE_S) - _between(used, start_s)
            costs.append(cpu_s / answers * 1e6)
    if len(costs) < SLICES_MIN:
        return None
    return round(sorted(costs)[int(CALM_SHARE * len(costs))], 1)


def _between(curve: Sequence[Sequence[float]], moment_s: float) -> float:
    """Return the value of a rising curve at a moment, on the straight line between two points."""
    after = bisect.bisect_left(curve, moment_s, key=lambda point: point[0])
    if after == 0:
        return curve[0][1]
    (before_s, low), (after_s, high) = curve[after - 1], curve[min(after, len(curve) - 1)]
    if after_s <= before_s:
        return high
    return low + (high - low) * (moment_s - before_s) / (after_s - before_s)
