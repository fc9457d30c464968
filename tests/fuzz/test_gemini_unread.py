"""What a stream of Gemini's tells where its last chunk is read alone, and where each chunk is."""

import json
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from llmproxy.dialects.base import Reading
from llmproxy.dialects.gemini_contents import STREAM, GeminiContents
from tests.fuzz.strategies import THOROUGH

COUNTS = st.sampled_from([0, 0, 1, 2, 5, 9, 40, None, "7", -1])
DETAILS = st.sampled_from(
    [[{"modality": name, "tokenCount": 3}] for name in ("TEXT", "TEXT", "IMAGE", "AUDIO")]
    + [[], None]
)
USAGES = st.fixed_dictionaries(
    {"promptTokenCount": st.sampled_from([9, 9, 9, 12, 0, None])},
    optional={
        "candidatesTokenCount": COUNTS,
        "thoughtsTokenCount": COUNTS,
        "toolUsePromptTokenCount": COUNTS,
        "cachedContentTokenCount": COUNTS,
        "totalTokenCount": st.sampled_from([30, 60, 99, 0, None]),
        "serviceTier": st.sampled_from(["PRIORITY", "", None]),
        "promptTokensDetails": DETAILS,
        "cacheTokensDetails": DETAILS,
    },
)
PARTS = st.sampled_from(
    [
        {"text": "Zwillinge ♊"},
        {"text": 'say "error": and\n\ndata: {} "index": 1'},
        {"functionCall": {"name": "f", "args": {"thoughtsTokenCount": 70, "index": 3}}},
        {"text": ""},
    ]
)
ORDINARY: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "candidates": st.lists(
            st.fixed_dictionaries(
                {"content": st.fixed_dictionaries({"parts": st.lists(PARTS, max_size=2)})},
                optional={"index": st.just(0)},
            ),
            max_size=1,
        ),
        "modelVersion": st.just("m"),
    },
    optional={"usageMetadata": USAGES},
)
CANDIDATES = st.fixed_dictionaries(
    {"content": st.just({"parts": [{"text": "a"}]})},
    optional={
        "index": st.sampled_from([0, 1, 2, -1]),
        "finishReason": st.sampled_from(["STOP", None]),
        "groundingMetadata": st.just({"webSearchQueries": ["a", "b"]}),
    },
)
ODD: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        "candidates": st.lists(CANDIDATES, max_size=2),
        "usageMetadata": USAGES,
        "modelVersion": st.sampled_from(["m-2", None]),
        "error": st.sampled_from([None, {"code": 503}]),
        "promptFeedback": st.just({"blockReason": "SAFETY"}),
    },
)
CHUNKS = st.tuples(
    st.lists(ORDINARY, max_size=4), st.lists(ODD, max_size=1), st.lists(ORDINARY, max_size=2)
).map(lambda lists: [chunk for some in lists for chunk in some])
CANDIDATE = {"content": {"parts": []}, "index": 0, "finishReason": "STOP"}
LAST: dict[str, Any] = {
    "candidates": [CANDIDATE],
    "usageMetadata": {"promptTokenCount": 9, "totalTokenCount": 30},
    "modelVersion": "m",
}
LASTS = USAGES.map(lambda usage: {**LAST, "usageMetadata": usage}) | st.just(LAST) | ODD
SEPARATORS = st.sampled_from([(",", ":"), (", ", ": "), (" , ", " : ")])
EOLS = st.sampled_from(["\r\n", "\n"])
FRAMES = st.lists(
    st.sampled_from(
        [
            *("data: {}", "data: {}", "data: {}", "data: {}", "data: {}", "data: {}"),
            *("data:{}", "id: 1\ndata: {}", "data: {}\nid: 1", ": c\rdata: {}", ": c\n\ndata: {}"),
            *("event: error\ndata: {}", "data: {{}}\n\ndata: {}", "data: {}\ndata: "),
        ]
    ),
    min_size=8,
    max_size=8,
)


def told(events: list[bytes], looks: list[bool], *, reads_each: bool) -> tuple[Reading, bool]:
    reader = GeminiContents(STREAM, "gemini-2.5-flash").stream_reader(withholds_usage=False)
    for event, looked_at in zip(events, looks, strict=False):
        reader.events.feed(event)
        if reads_each:
            assert reader.seen_bytes >= 0
        elif looked_at:
            assert reader.reading().seen_bytes >= 0
    reader.events.finish()
    return reader.reading(), reader.is_complete


@given(CHUNKS, LASTS, SEPARATORS, EOLS, FRAMES, st.lists(st.booleans(), min_size=8, max_size=8))
@example(
    [
        {"usageMetadata": {"promptTokenCount": 9, "candidatesTokenCount": 5}},
        {"candidates": [{"content": {"parts": [{"text": "a"}]}, "index": 1}]},
    ],
    LAST,
    (",", ":"),
    "\n",
    ["data: {}"] * 8,
    [False] * 8,
)
@THOROUGH
def test_the_same_is_told(
    chunks: list[dict[str, Any]],
    last: dict[str, Any],
    separators: tuple[str, str],
    eol: str,
    frames: list[str],
    looks: list[bool],
) -> None:
    events = [
        (
            frame.replace("\n", eol).format(json.dumps(chunk, separators=separators)) + eol * 2
        ).encode()
        for chunk, frame in zip((*chunks, last), frames, strict=False)
    ]
    assert told(events, looks, reads_each=False) == told(events, looks, reads_each=True)
