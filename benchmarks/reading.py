"""What reading usage costs, by itself: CPU per plain answer and per stream of some 20 events.

    python -m benchmarks.reading

Each dialect reads the answers of the recorded shapes, drawn out to 20 events by repeating one that
only brings text. A stream comes in as many pieces as it has events, as it does from a provider that
takes its time, and in one. The lowest of several rounds counts: what others do at the same time
only ever adds. CPU time, not time of the clock.
"""

import re
import time
from collections.abc import Callable

from benchmarks.machine import calibration_s
from llmproxy.dialects.base import Endpoint
from tests.every_cut import endpoint_of
from tests.fixtures import PLAIN, STREAMS, Case

EVENTS = 20
ROUNDS = 30
TIMES = 200
SHOWN = (
    *("openai-chat", "openai-responses", "openai-completions", "anthropic-messages"),
    *("groq-chat", "deepseek-chat", "openrouter-chat", "gemini-stream-drops", "gemini-generate"),
)
_TEXT = re.compile(rb'"(?:content|text|delta)": ?"[^"]')


def cpu_us(work: Callable[[], object]) -> float:
    """Return the CPU that one run takes, in µs."""
    best = float("inf")
    for _ in range(ROUNDS):
        begun = time.process_time()
        for _ in range(TIMES):
            work()
        best = min(best, time.process_time() - begun)
    return best / TIMES * 1e6


def drawn_out(case: Case) -> list[bytes]:
    """Return a stream's events, one that brings text repeated until there are `EVENTS`."""
    events = list(case.events)
    at = next(number for number, event in enumerate(events) if _TEXT.search(event))
    missing = [events[at]] * (EVENTS - len(events))
    return [*events[:at], *missing, *events[at:]]


def read_stream(endpoint: Endpoint, case: Case, pieces: list[bytes]) -> object:
    """Read a stream that comes in these pieces, and its usage."""
    reader = endpoint.stream_reader(withholds_usage=case.is_usage_withheld)
    for piece in pieces:
        reader.events.feed(piece)
    reader.events.finish()
    return reader.reading()


def plain_us(name: str) -> str:
    """Return the figure of a plain answer; empty when the fixture has none."""
    case = PLAIN.get(name)
    if case is None:
        return f"{'':8}"
    endpoint = endpoint_of(case)
    return f"{cpu_us(lambda: endpoint.read_answer(case.answer)):8.1f}"


def stream_us(name: str) -> str:
    """Return the figures of a stream; empty when the fixture has none."""
    case = STREAMS.get(name)
    if case is None:
        return ""
    endpoint, events = endpoint_of(case), drawn_out(case)
    apart = cpu_us(lambda: read_stream(endpoint, case, events))
    at_once = cpu_us(lambda: read_stream(endpoint, case, [b"".join(events)]))
    return f"{apart:8.1f}{at_once:8.1f}  {len(events)}"


def main() -> None:
    """Print a line for each dialect."""
    print(f"calibration {calibration_s() * 1000:.1f} ms; CPU in µs, the lowest of {ROUNDS} rounds")
    print(f"{'':24}{'plain':>8}{'stream':>8}{'in one':>8}  events")
    for name in SHOWN:
        line = f"{name:24}" + plain_us(name) + stream_us(name)
        print(line)


if __name__ == "__main__":
    main()
