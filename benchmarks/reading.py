"""What reading usage costs, by itself: CPU per plain answer and per stream of some 20 events.

    python -m benchmarks.reading

Each dialect reads the answers of the recorded shapes, drawn out to 20 events by repeating one that
only brings text. A stream comes in as many pieces as it has events, as it does from a provider that
takes its time, and in one. Then the same drawn out to 200: as it is read where nobody asks how long
it is, and counted all along, as it is for a hold that grows. The lowest of several rounds counts:
what others do at the same time only ever adds. CPU time, not time of the clock.
"""

import re
import time
from collections.abc import Callable

from benchmarks.machine import calibration_s
from llmproxy.dialects.base import Endpoint
from tests.every_cut import endpoint_of
from tests.fixtures import PLAIN, STREAMS, Case

EVENTS = 20
EVENTS_MANY = 200
HELD_BYTES = 8192
"""What is held of a stream at first (`HoldPolicy.stream_output_tokens`), in bytes of text."""
ROUNDS = 30
TIMES = 200
SHOWN = (
    *("openai-chat", "openai-responses", "openai-responses-incomplete"),
    *("openai-completions", "anthropic-messages"),
    *("groq-chat", "deepseek-chat", "openrouter-chat", "gemini-stream-drops", "gemini-generate"),
)
_TEXT = re.compile(rb'"(?:content|text|delta)": ?"[^"]')


def cpu_us(work: Callable[[], object], times: int = TIMES) -> float:
    """Return the CPU that one run takes, in µs."""
    best = float("inf")
    for _ in range(ROUNDS):
        begun = time.process_time()
        for _ in range(times):
            work()
        best = min(best, time.process_time() - begun)
    return best / times * 1e6


def drawn_out(case: Case, count: int = EVENTS) -> list[bytes]:
    """Return a stream's events, one that brings text repeated until there are so many."""
    events = list(case.events)
    at = next(number for number, event in enumerate(events) if _TEXT.search(event))
    missing = [events[at]] * (count - len(events))
    return [*events[:at], *missing, *events[at:]]


def read_stream(endpoint: Endpoint, case: Case, pieces: list[bytes]) -> object:
    """Read a stream that comes in these pieces, and its usage."""
    reader = endpoint.stream_reader(withholds_usage=case.is_usage_withheld)
    for piece in pieces:
        reader.events.feed(piece)
    reader.events.finish()
    return reader.reading()


def count_stream(endpoint: Endpoint, case: Case, pieces: list[bytes]) -> object:
    """Read a stream whose text must not pass uncounted beyond what a hold covers at first."""
    reader = endpoint.stream_reader(withholds_usage=case.is_usage_withheld)
    held_bytes = HELD_BYTES
    for piece in pieces:
        reader.events.feed(piece)
        if reader.seen_bytes_max > held_bytes and reader.seen_bytes > held_bytes - HELD_BYTES // 2:
            held_bytes += HELD_BYTES
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
    many = drawn_out(case, EVENTS_MANY)
    long = cpu_us(lambda: read_stream(endpoint, case, many), TIMES // 10)
    counted = cpu_us(lambda: count_stream(endpoint, case, many), TIMES // 10)
    return f"{apart:8.1f}{at_once:8.1f}{long:8.0f}{counted:8.0f}  {len(events)}"


def main() -> None:
    """Print a line for each dialect."""
    print(f"calibration {calibration_s() * 1000:.1f} ms; CPU in µs, the lowest of {ROUNDS} rounds")
    print(f"{'':28}{'plain':>8}{'stream':>8}{'in one':>8}{'of 200':>8}{'counted':>8}  events")
    for name in SHOWN:
        line = f"{name:28}" + plain_us(name) + stream_us(name)
        print(line)


if __name__ == "__main__":
    main()
