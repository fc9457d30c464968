"""How a request may end: docs/what-gets-charged.md once more, in plain integers, from the outside.

It knows what the provider's script meant, how far the proxy has read it and how that ended; never
how the proxy reads or prices. Where two things happened at once, both orders are right.
"""

import json
from typing import Any, NamedTuple

from tests.simulator.answers import ABSURD, Absurd, Counts, Event, Script, Wanted
from tests.simulator.visit import Sent, Visit

MILLION = 10**6
CLASSES = ("input", "cache_read", "output")


class Terms(NamedTuple):
    """What a hold has pinned, as it stands in the database."""

    rates: dict[str, int]
    """Nano-USD per million tokens, by class."""
    multiplier: int
    """User's times model's, in millionths of millionths."""
    placed_nanousd: int
    """What was held at first."""


class End(NamedTuple):
    """A way for a hold to end."""

    state: str
    basis: str
    cost_nanousd: int


RELEASED = End("released", "none", 0)


class Seen(NamedTuple):
    """What somebody who has read so much of an answer knows."""

    text_bytes: int
    usage: Counts | Absurd | None
    is_final: bool
    is_over: bool
    is_complete: bool
    has_error: bool


def terms_of(prices: str, user_micro: int, model_micro: int, placed_nanousd: int) -> Terms:
    """Return the terms of a hold from its pinned prices (JSON)."""
    rates: dict[str, Any] = json.loads(prices)["rates"]
    return Terms({name: rates[name] for name in rates}, user_micro * model_micro, placed_nanousd)


def cost(counts: Counts, terms: Terms) -> int:
    """Return the price of a usage: summed exactly, rounded up once."""
    rated = sum(counts.get(name, 0) * terms.rates[name] for name in CLASSES)
    return -(-rated * terms.multiplier // MILLION**3)


def held_for(wanted: Wanted, text_bytes: int, terms: Terms) -> int:
    """Return what must be held before so much text is passed on: two bytes are a token."""
    tokens = min(-(-text_bytes // 2), wanted.output_max)
    dearest = max(terms.rates[name] for name in ("input", "cache_read"))
    rated = (wanted.body_bytes // 3 + 600) * dearest + tokens * terms.rates["output"]
    return -(-rated * terms.multiplier // MILLION**3)


def possible_ends(visit: Visit, terms: Terms) -> set[End]:
    """Return every way in which a visit's hold may have ended in the running process."""
    if not visit.sent:
        return {RELEASED}
    last = visit.sent[-1]
    if last.status == 0:  # no answer came until it was cut
        ends = {RELEASED}
        if visit.is_gone and last.was_connected:
            ends |= _abandoned(visit, _NOTHING, terms)
        return ends
    if last.script is None or last.wanted is None:  # dropped, or an error
        return {RELEASED}
    if last.script.is_stream:
        return _ends_of_stream(visit, last, last.script, last.wanted, terms)
    if last.saw == "eof":
        return {_by_reading(_read_plain(last.script, last.read_bytes), last.wanted, terms)}
    if last.saw or not visit.is_gone:
        return {RELEASED}
    return {RELEASED} | _abandoned(visit, _NOTHING, terms)


def _ends_of_stream(
    visit: Visit, last: Sent, script: Script, wanted: Wanted, terms: Terms
) -> set[End]:
    seen = read_stream(script, last.read_bytes, has_ended=last.saw != "", dialect=wanted.dialect)
    ends = {_by_reading(seen, wanted, terms)}
    if not seen.is_over and not last.saw and visit.is_gone:
        ends |= _abandoned(visit, seen, terms)
    return ends


def dearest_note(visit: Visit, terms: Terms) -> int:
    """Return the most that a note of what has been seen can say: a crash ends the hold by it."""
    last = visit.sent[-1] if visit.sent else None
    if last is None or last.script is None or last.wanted is None or not last.script.is_stream:
        return 0
    sizes = [end for end in script_ends(last.script) if end <= last.read_bytes]
    seen = [
        read_stream(last.script, size, has_ended=False, dialect=last.wanted.dialect)
        for size in sizes
    ]
    some = [one for one in seen if one.text_bytes or isinstance(one.usage, dict)]
    return max([cost(_estimate(one, last.wanted), terms) for one in some], default=0)


def script_ends(script: Script) -> list[int]:
    """Return at which byte each event of a script ends."""
    ends, at = [], 0
    for event in script.events:
        at += len(event.data)
        ends.append(at)
    return ends


_NOTHING = Seen(0, None, is_final=False, is_over=False, is_complete=False, has_error=False)


def read_stream(script: Script, size: int, *, has_ended: bool, dialect: str) -> Seen:
    """Return what the first `size` bytes of a stream mean; one cut short is nothing."""
    read: list[Event] = []
    at = 0
    for event in script.events:
        part = event.data[: max(0, size - at)]
        at += len(event.data)
        if part == event.data:
            read.append(event)
        elif has_ended and part.rstrip(b"\n") == event.data.rstrip(b"\n"):
            read.append(event)  # only its blank line is missing
    text_bytes = sum(event.text_bytes for event in read)
    usage: Counts | Absurd | None = None
    is_final = is_doubted = is_old = False
    for event in read:
        if event.usage is None:
            is_old = is_old or (usage is not None and event.text_bytes > 0)
            continue
        is_old = False
        if dialect == "openai" or not isinstance(usage, dict):
            usage = event.usage
        elif isinstance(event.usage, dict):
            usage = {**usage, **event.usage}
        else:
            is_doubted = True  # what the beginning told of the input still counts
        is_final = is_final or event.is_final
    is_final = is_final and not is_doubted
    if isinstance(usage, dict) and (
        "input" not in usage or (text_bytes and not any(usage.values()))
    ):
        usage = ABSURD
    has_error = any(event.is_error for event in read)
    is_over = any(event.is_last for event in read)
    is_complete = is_over or any(event.finishes for event in read)
    if dialect == "openai":
        knows_output = isinstance(usage, dict) and usage.get("output", 0) > 0
        is_final = (is_complete or has_error) and (not is_old or (knows_output and not has_error))
    if is_complete and not (text_bytes or has_error or isinstance(usage, dict)):
        text_bytes = 1  # it has been generated, whatever it was
    return Seen(text_bytes, usage, is_final, is_over, is_complete, has_error)


def _read_plain(script: Script, size: int) -> Seen:
    (event,) = script.events
    if size < len(event.data):  # ended too early, and cleanly: no JSON
        return Seen(size, None, True, False, True, False)
    usage = event.usage
    if isinstance(usage, dict) and event.text_bytes and not any(usage.values()):
        usage = ABSURD
    return Seen(event.text_bytes, usage, True, False, True, False)


def _by_reading(seen: Seen, wanted: Wanted, terms: Terms) -> End:
    if isinstance(seen.usage, dict) and seen.is_final:
        return End("settled", "usage", cost(seen.usage, terms))
    if not isinstance(seen.usage, dict) and seen.text_bytes == 0:
        return RELEASED
    return End("settled", "estimate", cost(_estimate(seen, wanted), terms))


def _estimate(seen: Seen, wanted: Wanted) -> Counts:
    output = min(-(-seen.text_bytes // 3), wanted.output_max)
    if isinstance(seen.usage, dict):
        return {**seen.usage, "output": max(seen.usage.get("output", 0), output)}
    return {"input": -(-wanted.body_bytes // 3), "output": output}


def _abandoned(visit: Visit, seen: Seen, terms: Terms) -> set[End]:
    """Return the end of an answer whose client left, and which could not be read to its end."""
    if isinstance(seen.usage, dict) and seen.is_final:
        return {End("settled", "usage", cost(seen.usage, terms))}
    if visit.ask.model == "sim-think":
        return {End("settled", "hold", terms.placed_nanousd)}
    wanted = visit.sent[-1].wanted
    if wanted is None:
        wanted = Wanted(visit.ask.dialect, "", False, 0, False, len(visit.ask.body))
    return {End("settled", "estimate", cost(_estimate(seen, wanted), terms))}
