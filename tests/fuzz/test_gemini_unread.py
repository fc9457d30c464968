"""What a stream of Gemini's tells where its last chunk is read alone, and where each chunk is."""

import json
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from llmproxy.dialects.base import Reading
from llmproxy.dialects.gemini_contents import STREAM, GeminiContents
from tests.fuzz.strategies import THOROUGH

COUNTS = st.sampled_from([0, 0, 1, 2, 5, 9, 40, None, "7", -1])
USAGES = st.fixed_dictionaries(
    {"promptTokenCount": st.sampled_from([9, 9, 9, 12, 0, None])},
    optional={
        "candidatesTokenCount": COUNTS,
        "thoughtsTokenCount": COUNTS,
        "toolUsePromptTokenCount": COUNTS,
        "cachedContentTokenCount": COUNTS,
        "totalTokenCount": st.sampled_from([30, 60, 99, 0, None]),
        "promptTokensDetails": st.just([{"modality": "IMAGE", "tokenCount": 3}]),
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
        "index": st.sampled_from([0, 1]),
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
EOLS = st.sampled_from(["\r\n", "\n"])
SEPARATORS = st.sampled_from([(",", ":"), (", ", ": ")])


def told(events: list[bytes], *, reads_each: bool) -> tuple[Reading, bool]:
    reader = GeminiContents(STREAM, "gemini-2.5-flash").stream_reader(withholds_usage=False)
    for event in events:
        reader.events.feed(event)
        if reads_each:
            assert reader.seen_bytes >= 0
    reader.events.finish()
    return reader.reading(), reader.is_complete


@given(CHUNKS, LASTS, EOLS, SEPARATORS)
@example(
    [
        {"usageMetadata": {"promptTokenCount": 9, "candidatesTokenCount": 5}},
        {"candidates": [{"content": {"parts": [{"text": "a"}]}, "index": 1}]},
    ],
    LAST,
    "\n",
    (",", ":"),
)
@THOROUGH
def test_the_same_is_told(
    chunks: list[dict[str, Any]], last: dict[str, Any], eol: str, separators: tuple[str, str]
) -> None:
    events = [
        f"data: {json.dumps(chunk, separators=separators)}{eol}{eol}".encode()
        for chunk in (*chunks, last)
    ]
    assert told(events, reads_each=False) == told(events, reads_each=True)
