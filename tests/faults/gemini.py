"""Gemini's own streams: as events, and as one JSON array, which end in ways of their own.

The prices of gemini-2.5-flash are 0.30 / 0.03 cached / 2.50 USD per million tokens. Plain answers
of this dialect are read as the others are, and not played again here.
"""

from tests.faults.dialects import OUTPUT_MAX, PIECES, TEXT, Dialect, Event, Rates, compact
from tests.support.answers import data_event

JSON = dict[str, object]
MODEL = "gemini-2.5-flash"
PATH = f"v1beta/models/{MODEL}:streamGenerateContent"
_TOLD = {"promptTokenCount": 1000, "cachedContentTokenCount": 600}
INPUT_NANOUSD = 400 * 300 + 600 * 30
BEGUN = {**_TOLD, "candidatesTokenCount": 1, "totalTokenCount": 1001}
"""What the chunks before the last report."""
USAGE = {**_TOLD, "candidatesTokenCount": 10, "thoughtsTokenCount": 40, "totalTokenCount": 1050}


def chunk(text: str, end: str | None = None, usage: object = BEGUN, index: int = 0) -> JSON:
    """One object of a stream."""
    content = {"parts": [{"text": text}], "role": "model"}
    ended = {"finishReason": end} if end else {}
    candidate = {"content": content, **ended, "index": index}
    return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": MODEL}


CHUNKS = (chunk(""), *(chunk(piece) for piece in PIECES), chunk("", "STOP", USAGE))


def _events() -> tuple[Event, ...]:
    begin, *pieces, last = (data_event(one) for one in CHUNKS)
    return (
        Event(begin, tells_input=True),
        *(Event(raw, len(text)) for raw, text in zip(pieces, PIECES, strict=True)),
        Event(last, settles=True, completes=True),  # no word says that it was the last
    )


def _array() -> tuple[Event, ...]:
    begin, *pieces, last = (compact(one) for one in CHUNKS)
    return (
        Event(b"[" + begin, tells_input=True),
        *(Event(b"\n,\r\n" + raw, len(text)) for raw, text in zip(pieces, PIECES, strict=True)),
        Event(b"\n,\r\n" + last, settles=True),
        Event(b"\n]\n", completes=True, closes=True),
    )


EVENTS = Dialect(
    name="gemini",
    family="gemini",
    path=f"{PATH}?alt=sse",
    path_model=MODEL,
    fields={
        "contents": [{"parts": [{"text": "hi"}]}],
        "generationConfig": {"maxOutputTokens": OUTPUT_MAX},
    },
    rates=Rates(300, 30, 2_500, 300),
    is_reasoning=True,
    usage=USAGE,
    cost_nanousd=INPUT_NANOUSD + 50 * 2_500,
    answer={**chunk(TEXT, "STOP", USAGE)},
    generated=("candidates",),
    events=_events(),
    told_nanousd=INPUT_NANOUSD,
    told_output_tokens=1,
    input_name="promptTokenCount",
    output_name="candidatesTokenCount",
)
ARRAY = EVENTS._replace(name="gemini array", path=PATH, events=_array(), is_array=True)
