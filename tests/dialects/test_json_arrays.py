"""The splitting of JSON arrays into their objects, as they come."""

import json
import random

import pytest

from llmproxy.dialects.gemini_contents import GeminiContents
from llmproxy.dialects.json_arrays import ArrayStream, EventsOrArray
from llmproxy.dialects.sse import (
    EVENT_BYTES_MAX,
    Deferral,
    EventStream,
    EventTooLargeError,
    Splitter,
)


class Objects:
    """What a reader of an array is handed."""

    def __init__(self) -> None:
        self.is_over = False
        self.found: list[bytes] = []
        self.ends = 0
        self.events: Splitter = EventsOrArray(self, Deferral())

    def on_event(self, name: bytes, data: bytes) -> bool:
        del name
        self.found.append(data)
        return False

    def on_deferred(self, datas: list[bytes]) -> bool:
        raise AssertionError(datas)  # none is, by default

    def on_finish(self) -> None:
        """Nothing to do."""

    def on_array_end(self) -> None:
        self.ends += 1


def split(stream: bytes, *cuts: int) -> tuple[list[bytes], int]:
    objects = Objects()
    pieces = [stream[a:b] for a, b in zip((0, *cuts), (*cuts, None), strict=True)]
    passed = b"".join(objects.events.feed(piece) for piece in pieces)
    assert passed + objects.events.finish() == stream
    return objects.found, objects.ends


TRICKY = [
    {"a": '}]{["', "b": {"c": [{}, {"d": "\\"}]}},
    {},
    {"é後😀": '\\"', "x": "\\\\", "\\": "]"},
    {"n": [1, 2, {"m": "\u2028"}]},
]


@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize("indent", [None, 2])
def test_an_array_is_split_into_its_objects_however_it_is_cut(
    ascii_only: bool, indent: int | None
) -> None:
    written = [json.dumps(one, ensure_ascii=ascii_only, indent=indent).encode() for one in TRICKY]
    stream = b" \n[" + b"\n,\r\n".join(written) + b"\n]\n"
    assert split(stream) == (written, 1)
    for cut in range(len(stream) + 1):
        assert split(stream, cut) == (written, 1)
    rng = random.Random(7)
    for _ in range(200):
        cuts = sorted(rng.randrange(len(stream) + 1) for _ in range(rng.randrange(2, 40)))
        assert split(stream, *cuts) == (written, 1)
    assert split(stream, *range(1, len(stream))) == (written, 1)


def test_of_an_array_cut_short_the_whole_objects_are_read() -> None:
    stream = b'[{"a":1},{"b":"}'
    assert split(stream) == ([b'{"a":1}'], 0)


def test_what_follows_the_end_of_an_array_counts_for_nothing() -> None:
    assert split(b'[{"a":1}] , {"b":1}] []') == ([b'{"a":1}'], 1)


def test_a_long_text_in_small_pieces_is_read_once() -> None:
    """256 KiB in pieces of 64 bytes: with a second look at each it would take minutes."""
    written = json.dumps({"data": 'ab\\"' * 65_536}).encode()
    stream = b"[" + written + b"]"
    assert split(stream, *range(64, len(stream), 64)) == ([written], 1)


def test_an_object_without_end_is_not_kept_for_ever() -> None:
    splitter = ArrayStream(Objects())
    splitter.feed(b'[{"a":"')
    with pytest.raises(EventTooLargeError):
        splitter.feed(b"x" * EVENT_BYTES_MAX)


@pytest.mark.parametrize("around", [b"", b" \n"])
@pytest.mark.parametrize("one", TRICKY)
def test_an_object_in_no_array_is_all_there_is_once_it_is_whole(
    one: dict[str, object], around: bytes
) -> None:
    written = json.dumps(one, indent=2).encode()
    stream = around + written + around
    for cut in range(len(stream) + 1):
        assert split(stream, cut) == ([written], 1)
    for size in range(len(around) + 1, len(around + written)):
        assert split(stream[:size]) == ([], 0)


@pytest.mark.parametrize("behind", [b"\n", b"]", b"\n]"])
def test_objects_in_no_array_are_read_to_the_end_of_the_stream(behind: bytes) -> None:
    assert split(b'{"a":1}\n{"b":1}' + behind) == ([b'{"a":1}', b'{"b":1}'], 1)
    assert split(b'{"a":1}\n{"b":') == ([b'{"a":1}'], 0)


def test_blanks_without_end_are_not_kept() -> None:
    """A stream of nothing but blanks is taken for events; what comes then is one."""
    reader = GeminiContents("streamGenerateContent", "m").stream_reader(withholds_usage=False)
    for _ in range(40):
        assert reader.events.feed(b"\n" * 1000) == b"\n" * 1000
    assert isinstance(reader.events, EventStream)
    reader.events.feed(b'data: {"candidates":[{"content":{"parts":[{"text":"word"}]}}]}\n\n')
    assert reader.seen_bytes == 4
