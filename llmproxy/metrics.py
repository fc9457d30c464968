"""Owns the counters of the serving process and their text form for Prometheus.

The form is version 0.0.4 of the text exposition format. Labels are names of ours only: providers,
endpoints, states, classes; never a user, a model or anything that a client sent. Must not read the
database or a clock: what is current is handed in when the page is written.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable

from llmproxy.money import format_usd
from llmproxy.trace import Trace

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
TTFB_BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
DURATION_BUCKETS_S = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)

Labels = tuple[tuple[str, str], ...]
Sample = tuple[Labels, int | str]
"""Labels and a value; text is a plain decimal."""


class Histogram:
    """How often a duration was within each bound, by provider."""

    def __init__(self, bounds_s: tuple[float, ...]) -> None:
        """Take the upper bounds of the buckets, in seconds; one without a bound is added."""
        self.bounds_s = bounds_s
        self._counts: dict[str, list[int]] = {}
        self._sums_s: dict[str, float] = {}

    def observe(self, provider: str, value_s: float) -> None:
        """Count one duration."""
        counts = self._counts.get(provider)
        if counts is None:
            counts = self._counts[provider] = [0] * (len(self.bounds_s) + 1)
            self._sums_s[provider] = 0.0
        counts[bisect_left(self.bounds_s, value_s)] += 1
        self._sums_s[provider] += value_s

    def lines(self, name: str) -> Iterable[str]:
        """Yield the samples; each bucket counts all that is within its bound."""
        for provider, counts in self._counts.items():
            label = (("provider", provider),)
            total = 0
            for bound, count in zip((*self.bounds_s, None), counts, strict=True):
                total += count
                le = "+Inf" if bound is None else f"{bound:g}"
                yield _sample(f"{name}_bucket", (*label, ("le", le)), total)
            yield _sample(f"{name}_sum", label, f"{self._sums_s[provider]:.6f}")
            yield _sample(f"{name}_count", label, total)


class Metrics:
    """What has been counted since the start of the process."""

    def __init__(self) -> None:
        """Begin at zero."""
        self.in_flight = 0
        """Requests that have come and not ended."""
        self._requests: Counter[tuple[str, str, str, str]] = Counter()
        self._tokens: Counter[tuple[str, str]] = Counter()
        self._cost_nanousd: Counter[str] = Counter()
        self._ttfb = Histogram(TTFB_BUCKETS_S)
        self._duration = Histogram(DURATION_BUCKETS_S)

    def note_end(self, trace: Trace) -> None:
        """Count a request that has ended."""
        status = f"{trace.status // 100}xx" if trace.status else "none"
        self._requests[trace.provider, trace.endpoint, status, trace.final_state] += 1
        if not trace.attempts:
            return
        provider = trace.provider
        for name, count in trace.tokens().items():
            if count:
                self._tokens[provider, name] += count
        self._cost_nanousd[provider] += trace.cost_nanousd
        self._duration.observe(provider, trace.duration_s)
        if trace.ttfb_s is not None:
            self._ttfb.observe(provider, trace.ttfb_s)

    def families(self) -> Iterable[str]:
        """Yield the lines of everything that is counted here."""
        yield from family(
            "llmproxy_requests_total",
            "counter",
            "Requests that have ended, by status class of the answer (none: the client left "
            "before) and by how their hold ended.",
            (
                (_labels(provider=p, endpoint=e, status=s, state=state), count)
                for (p, e, s, state), count in self._requests.items()
            ),
        )
        yield from family(
            "llmproxy_tokens_total",
            "counter",
            "Tokens by billed class; the classes are disjoint, reasoning is part of output.",
            ((_labels(provider=p, **{"class": c}), n) for (p, c), n in self._tokens.items()),
        )
        yield from family(
            "llmproxy_cost_usd_total",
            "counter",
            "What requests have cost users, in USD.",
            ((_labels(provider=p), format_usd(n)) for p, n in self._cost_nanousd.items()),
        )
        for name, text, histogram in (
            ("llmproxy_time_to_first_byte_seconds", "to the head of its answer", self._ttfb),
            ("llmproxy_request_duration_seconds", "to its end, drains included", self._duration),
        ):
            yield f"# HELP {name} From the arrival of a request that was sent on, {text}."
            yield f"# TYPE {name} histogram"
            yield from histogram.lines(name)
        yield from family(
            "llmproxy_inflight_requests",
            "gauge",
            "Requests that are running now.",
            [((), self.in_flight)],
        )


def family(name: str, kind: str, text: str, samples: Iterable[Sample]) -> Iterable[str]:
    """Yield the lines of one metric: help, type, samples.

    Args:
        name: with its unit, and `_total` for a counter.
        kind: `counter` or `gauge`.
        text: what it is and its unit, in one line.
        samples: its values.
    """
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} {kind}"
    for labels, value in samples:
        yield _sample(name, labels, value)


def _labels(**values: str) -> Labels:
    return tuple(values.items())


def _sample(name: str, labels: Labels, value: int | str) -> str:
    if not labels:
        return f"{name} {value}"
    inner = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels)
    return f"{name}{{{inner}}} {value}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
