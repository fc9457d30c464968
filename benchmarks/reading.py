"""What reading usage costs, by itself: CPU per plain answer and per stream of some 20 events.

    python -m benchmarks.reading

Each dialect reads the answers of the recorded shapes, drawn out to 20 events by repeating one that
only brings text. A stream comes in as many pieces as it has events, as it does from a provider that
takes its time, with and without the note that such a stream gets behind its first event, and in
one. Then the same drawn out to 200: as it is read where nobody asks how long it is, and counted all
along, as it is for a hold that grows. The lowest of several rounds counts:
what others do at the same time only ever adds. CPU time, not time of the clock.
"""

import re
import time
from collections.abc import Callable
from functools import partial
from itertools import chain

from rich.progress import track

from benchmarks.machine import calibration_s
from llmproxy.dialects.base import Endpoint
from tests.every_cut import endpoint_of
from tests.fixtures import PLAIN, STREAMS, Case

EVENTS = 20
EVENTS_MANY = 200
COLUMNS = ("plain", "stream", "noted", "in one", "of 200", "counted")
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


def drawn_out(case: Case, count: int = EVENTS) -> list[bytes]:
    """Return a stream's events, one that brings text repeated until there are so many."""
    events = list(case.events)
    at = next(number for number, event in enumerate(events) if _TEXT.search(event))
    missing = [events[at]] * (count - len(events))
    return [*events[:at], *missing, *events[at:]]


def read_stream(
    endpoint: Endpoint, case: Case, pieces: list[bytes], *, is_noted: bool = False
) -> object:
    """Read a stream that comes in these pieces, and its usage.

    Where the first piece comes a moment before the others, what it tells is noted at once.
    """
    reader = endpoint.stream_reader(withholds_usage=case.is_usage_withheld)
    for number, piece in enumerate(pieces):
        reader.events.feed(piece)
        if is_noted and not number:
            reader.reading()
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


class Figure:
    """The CPU that one piece of work takes, in µs: the lowest of all rounds so far."""

    def __init__(self, work: Callable[[], object], times: int = TIMES) -> None:
        """Take the work, which a round does so many times."""
        self._work, self._times = work, times
        self.us = float("inf")

    def measure(self) -> None:
        """Do a round."""
        begun = time.process_time()
        for _ in range(self._times):
            self._work()
        self.us = min(self.us, (time.process_time() - begun) / self._times * 1e6)


def figures_of(name: str) -> list[Figure | None]:
    """Return the figures of a shape, in their columns; None where there is no such fixture."""
    figures: list[Figure | None] = [None] * len(COLUMNS)
    if (plain := PLAIN.get(name)) is not None:
        figures[0] = Figure(partial(endpoint_of(plain).read_answer, plain.answer))
    if (case := STREAMS.get(name)) is not None:
        endpoint, events, many = endpoint_of(case), drawn_out(case), drawn_out(case, EVENTS_MANY)
        read = partial(read_stream, endpoint, case)
        figures[1:] = [
            Figure(partial(read, events)),
            Figure(partial(read, events, is_noted=True)),
            Figure(partial(read, [b"".join(events)])),
            Figure(partial(read, many), TIMES // 10),
            Figure(partial(count_stream, endpoint, case, many), TIMES // 10),
        ]
    return figures


def main() -> None:
    """Print a line for each dialect."""
    rows = {name: figures_of(name) for name in SHOWN}
    calibrations = [calibration_s()]
    # One after the other, and again: a machine that is slow for a while is so for all of them.
    for _ in track(range(ROUNDS), "measuring", transient=True):
        for figure in chain.from_iterable(rows.values()):
            if figure is not None:
                figure.measure()
        calibrations.append(calibration_s())
    best_ms = min(calibrations) * 1000
    print(f"calibration {best_ms:.1f} ms; CPU in µs, the lowest of {ROUNDS} rounds")
    print(f"{'':28}" + "".join(f"{column:>9}" for column in COLUMNS))
    for name, figures in rows.items():
        cells = ("" if figure is None else f"{figure.us:.1f}" for figure in figures)
        print(f"{name:28}" + "".join(f"{cell:>9}" for cell in cells))


if __name__ == "__main__":
    main()
