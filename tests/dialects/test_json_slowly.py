"""Bodies of very many values or long texts: read by the same rules, without stopping the loop."""

import asyncio
import gc
import json
import time
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llmproxy.dialects import json_gate
from llmproxy.dialects.anthropic_messages import AnthropicMessages
from llmproxy.dialects.base import Endpoint, InputFacts, RequestFacts
from llmproxy.dialects.json_gate import parse_object, with_member, with_new_member
from llmproxy.dialects.json_slowly import (
    KEPT_BYTES_MAX,
    VALUES_MAX,
    AmbiguousError,
    no_constant,
    no_duplicates,
    read_slowly,
)
from llmproxy.dialects.openai_chat import OpenAIChat
from llmproxy.errors import ApiError

MIB = 1024 * 1024

# --- the same values, the same refusals ---

TREES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=20,
)
BITS = st.sampled_from(
    [b"", b" ", *b'{ } [ ] , : " \\ 0 - . e1 true nul NaN \\u0061 \xc3 \x00'.split()]
)


def read_fast(body: bytes) -> object:
    return json.loads(body.decode(), object_pairs_hook=no_duplicates, parse_constant=no_constant)


def outcome(body: bytes, *, slowly: bool) -> str:
    try:
        return repr(read_slowly(body) if slowly else read_fast(body))
    except AmbiguousError as error:
        return f"ambiguous: {error}"
    except UnicodeDecodeError:
        return "not UTF-8"
    except ValueError:
        return "no JSON"


@given(TREES, st.booleans(), st.sampled_from([None, 0, 1]), BITS, st.integers(0, 200))
@settings(max_examples=500, deadline=None, database=None)
@example([], True, None, b'{"a":1,"a":2}', 0)
@example({"a": 1}, True, None, b",", 6)
@example(1e400, True, None, b"", 0)
def test_both_readers_agree(
    tree: object, is_ascii: bool, indent: int | None, bit: bytes, position: int
) -> None:
    text = json.dumps(tree, ensure_ascii=is_ascii, indent=indent)
    body = text.encode(errors="surrogatepass")
    for each in (body, body[:position] + bit + body[position:], body[:position]):
        assert outcome(each, slowly=True) == outcome(each, slowly=False)


EDGES = rb"""
01 - 1. .5 1e 1E+5 -0 -0.0e-0 1|2 [1,] {"a":1,} {"a"} {"a":} {a:1} [ ] {] [} {"a":[} " "\x" "\u12"
"\ud83d\ude00" "\ud83d" "\u00e9\"" nan -Infinity [NaN] // {"a":1,"\u0061":2} {"":[{"b":0,"b":0}]}
tru truefalse nullnull {,} [,] [1,,2] {"a":1,,"b":2} {"a"::1} {1:2} "a"b" \t \xff
""".split()


@pytest.mark.parametrize("body", [*EDGES, b"", b'"\n"', b"9" * 5000, b"\xef\xbb\xbf{}", b"\xff"])
def test_both_readers_agree_on_the_edges(body: bytes) -> None:
    body = body.replace(b"|", b" ")
    for each in (body, b" [" + body + b"] ", b'{"x":' + body + b"}"):
        assert outcome(each, slowly=True) == outcome(each, slowly=False)


@pytest.mark.parametrize("unit", ["a", "é", "中", "😀", "\\n", "\\u00e9", "\\ud83d\\ude00"])
def test_of_a_long_text_the_beginning_is_kept_and_the_whole_is_checked(unit: str) -> None:
    body = f'["{unit * KEPT_BYTES_MAX}"]'.encode()
    kept = read_slowly(body)
    assert isinstance(kept, list)
    assert json.loads(body)[0].startswith(kept[0])
    assert len(kept[0]) > 256
    for wrong in (b"\n", b"\\x", b"\xff", b"\\u00"):
        assert outcome(body[:-2] + wrong + body[-2:], slowly=True) in {"no JSON", "not UTF-8"}


def test_a_text_that_counts_for_the_bill_is_read_whole() -> None:
    for unit in ("\\u0061", "\\ud83d\\ude00", "😀"):
        text = unit * 256
        assert read_slowly(f'["{text}"]'.encode()) == [json.loads(f'"{text}"')]


def test_what_nobody_needs_is_refused() -> None:
    many = b'{"model":"m","x":[' + b"1," * VALUES_MAX + b"1]}"
    long_name = b'{"model":"m","' + b"n" * 5 * MIB + b'":1}'
    deep = b'{"model":"m","x":' + b"[" * 90_000 + b"]" * 90_000 + b"}"
    for body, words in (
        (many, "250,000 names and values"),
        (long_name, "name has more than"),
        (deep, "nested too deeply"),
    ):
        with pytest.raises(ApiError, match=words):
            parse_object(body, ())


# --- the same facts for a large body ---

SOURCE = {"type": "url", "url": "https://example.org/x.png"}
IMAGE = {"type": "image_url", "image_url": {"url": "https://example.org/x.png"}}
HOUR = {"type": "ephemeral", "ttl": "1h"}
CHAT: list[dict[str, Any]] = [
    {"stream": True, "n": 3, "max_tokens": 9, "service_tier": "priority"},
    {"stream": True, "stream_options": {"include_usage": True}, "tools": [{"function": {}}]},
    {"messages": [{"content": [IMAGE, IMAGE]}]},
    {"messages": [{"content": [{"type": "input_audio"}]}]},
    {"messages": [{"content": [{"file": {"file_id": "f"}}]}]},
    {"max_tokens": -1},
    {"model": "x" * 5000},
    {"model": "gpt-5-search-api"},
    {"Model": "x"},
    {"tools": [{"type": "browser_search" * 500}]},
]
MESSAGES: list[dict[str, Any]] = [
    {"max_tokens": 9, "system": [{"cache_control": HOUR}], "speed": "fast"},
    {"messages": [{"content": [{"type": "tool_result", "content": [{"source": SOURCE}]}]}]},
    {"messages": [{"content": [{"type": "container_upload"}]}]},
    {"tools": [{"type": "web_search_20250305", "max_uses": 4}]},
    {"tools": [{"type": "bash_" + "x" * 5000}]},
    {"mcp_servers": []},
]


def facts_or_refusal(endpoint: Endpoint, body: bytes) -> RequestFacts | tuple[str, str | None]:
    try:
        return endpoint.read_request(body)
    except ApiError as error:
        return error.message, error.param


@pytest.mark.parametrize("escape", [b"x", b"\\n"])
@pytest.mark.parametrize(
    ("endpoint", "fields"),
    [
        *((OpenAIChat(), fields) for fields in CHAT),
        *((AnthropicMessages(), fields) for fields in MESSAGES),
    ],
)
def test_a_padded_body_has_the_same_facts_and_refusals(
    endpoint: Endpoint, fields: dict[str, Any], escape: bytes
) -> None:
    small = json.dumps({"model": "m", **fields}).encode()
    padding = escape * (5 * MIB // len(escape))
    large = small[:-1] + b',"pad":"' + padding + b'"}'
    read, wanted = facts_or_refusal(endpoint, large), facts_or_refusal(endpoint, small)
    if isinstance(wanted, RequestFacts):
        assert isinstance(read, RequestFacts)
        longer = len(large) - len(small)
        assert read.input.text_bytes == wanted.input.text_bytes + longer
        assert _without_size(read) == _without_size(wanted)
    else:
        assert read == wanted


def _without_size(facts: RequestFacts) -> RequestFacts:
    sizeless = msgspec.structs.replace(facts.input, text_bytes=0)
    return msgspec.structs.replace(facts, input=sizeless)


def test_the_duplicates_of_a_large_body_are_found_by_escapes_too() -> None:
    pad = b'"pad":"' + b"x" * 5 * MIB + b'"'
    with pytest.raises(ApiError, match="'model' stands twice"):
        parse_object(b'{"model":"a",' + pad + b',"m\\u006fdel":"b"}', ())


def agents_body() -> bytes:
    """Return 5 MB as a coding agent sends them: many tools, long texts with JSON, images."""
    text = 'def f(x):\n    return {"model": "x", "max_tokens": [1, 2]}\n' * 200
    member = {"type": "string", "description": "which model"}
    schema = {"type": "object", "properties": {"model": member, "max_tokens": member}}
    tools = [
        {"name": f"t{n}", "description": text[:500], "input_schema": schema} for n in range(99)
    ]
    turns: list[dict[str, Any]] = []
    for n in range(200):
        use = {"type": "tool_use", "id": f"t{n}", "name": "t", "input": {"model": "x", "stream": 1}}
        image = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo" * 900}
        parts = [{"type": "text", "text": text}, {"type": "image", "source": image}]
        result = {"type": "tool_result", "tool_use_id": f"t{n}", "content": parts}
        turns += [{"role": "assistant", "content": [use]}, {"role": "user", "content": [result]}]
    fields = {"model": "m", "max_tokens": 64000, "stream": True, "tools": tools, "messages": turns}
    return json.dumps(fields).encode()


def test_an_agents_large_body_is_read() -> None:
    body = agents_body()
    facts = AnthropicMessages().read_request(body)
    assert (facts.model, facts.output_max, facts.is_stream) == ("m", 64000, True)
    images = 200 * 11 * 900
    assert facts.input == InputFacts(len(body) - images, has_tools=True, media=200)


def test_a_member_is_written_into_a_large_body_and_every_other_byte_stays() -> None:
    pad = b'"pad": "' + b'\\"opt\\":1,{[' * MIB + b'"'
    body = b'{%b, "opt" : {"opt": 2} , "z":"}"}' % pad
    assert with_member(body, "opt", 1) == b'{%b, "opt" : 1 , "z":"}"}' % pad
    spaced = b"{" + b" " * 9 * MIB + b"}"
    assert with_new_member(spaced, "a", 1) == b'{"a":1' + spaced[1:]


# --- nothing waits ---

NO_PADDING = b'{"model":"m","x":'
WORST = {
    "lists": NO_PADDING + b"[" + b"[]," * (10 * MIB) + b"0]}",
    "escapes": NO_PADDING + b'"' + b"\\n" * (16 * MIB) + b'"}',
    "duplicates": b'{"model":"m"'
    + b"".join(b',"k%d":0' % n for n in range(60_000))
    + b',"k59999":1}',
}


async def _longest_wait(body: bytes) -> float:
    longest = 0.0
    task = asyncio.ensure_future(asyncio.to_thread(facts_or_refusal, OpenAIChat(), body))
    before = time.monotonic()
    while not task.done():
        await asyncio.sleep(0.001)
        now = time.monotonic()
        longest, before = max(longest, now - before), now
    return longest


@pytest.mark.parametrize("name", WORST)
def test_the_loop_goes_on_while_a_body_made_to_stop_it_is_read(name: str) -> None:
    # Measured: 10 to 45 ms. The standard parser takes up to 3 s in one go. The machine may be busy
    # with other things, so the best of three counts; and what the other tests have left in memory
    # is put where the collector does not look, as the server does at its start.
    gc.collect()
    gc.freeze()
    try:
        assert min(asyncio.run(_longest_wait(WORST[name])) for _ in range(3)) < 0.5
    finally:
        gc.unfreeze()


def test_a_body_that_is_read_on_the_loop_takes_no_time_whatever_is_in_it() -> None:
    for unit in (b"[],", b'{"a":0},', b"[" * 90 + b"]" * 90 + b",", b'"\\n",'):
        items = unit * ((json_gate.LOOP_BYTES - 50) // len(unit))
        body = b'{"model":"m","messages":[' + items + b"0]}"
        before = time.thread_time()  # not what others take of the machine meanwhile
        OpenAIChat().read_request(body)
        assert time.thread_time() - before < 0.2
