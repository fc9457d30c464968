"""What the gate takes, other readers of JSON read as it does, in whatever matters for the bill.

Some readers take the first of two members with the same name, some the last; some do not look at
the case of letters. A body that they read differently must be refused.
"""

import json
from typing import Any

import msgspec
from hypothesis import example, given
from hypothesis import strategies as st

from llmproxy.dialects import json_gate
from llmproxy.dialects.json_gate import parse_object
from llmproxy.dialects.json_slowly import read_slowly
from llmproxy.errors import ApiError
from tests.fuzz.strategies import THOROUGH

BILLED = frozenset({"model", "max_tokens", "stream", "n", "tasks"})
WORDS = (*BILLED, "x", "messages", "", "a/b", "\ud83d\ude00", "k", "s")


@st.composite
def spelled(draw: st.DrawFn, word: str) -> str:
    """A JSON string that says this word, or a twin of it: escapes, capitals, letters that fold."""
    letters = []
    for letter in word:
        form = draw(
            st.sampled_from(["as it is"] * 6 + ["escaped", "Escaped", "capital", "folding"])
        )
        if form == "escaped":
            letters.append(json.dumps(letter) if ord(letter) > 127 else f"\\u{ord(letter):04x}")
        elif form == "Escaped":
            letters.append(f"\\u{ord(letter):04X}" if ord(letter) < 0x10000 else letter)
        elif form == "capital":
            letters.append(letter.upper())
        else:
            folding = {"s": "\u017f", "k": "\u212a"}
            letters.append(folding.get(letter, letter) if form == "folding" else letter)
    return '"' + "".join(letter.strip('"') for letter in letters) + '"'


NUMBERS = st.sampled_from(["0", "1", "9", "-1", "1.0", "1e3", "1E400", "-0", "9" * 25, "NaN", "01"])
TEXTS = st.sampled_from(['"gpt-4o"', '"a"', '"\\ud800"', '"\\u0000"', '""', '"]}"', '"\\""'])
LEAVES = NUMBERS | TEXTS | st.sampled_from(["true", "false", "null", "[]", "{}"])
BLANKS = st.sampled_from(["", "", "", " ", "\n", "\t\r\n", "\u00a0", "\ufeff", "//x\n"])


@st.composite
def objects(draw: st.DrawFn, depth: int = 0) -> str:
    """An object as text, good or nearly so."""
    members = []
    for _ in range(draw(st.integers(0, 5))):
        name = draw(st.sampled_from(WORDS).flatmap(spelled))
        nested = depth < 2 and draw(st.integers(0, 3)) == 0
        value = draw(objects(depth + 1)) if nested else draw(LEAVES)
        value = f"[{value}]" if draw(st.integers(0, 6)) == 0 else value
        members.append(draw(BLANKS) + name + draw(BLANKS) + ":" + draw(BLANKS) + value)
    return "{" + ",".join(members) + draw(BLANKS) + "}"


def first_wins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return dict(reversed(pairs))


def case_insensitive(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """As Go's: a name fits whatever its case, and the last one that fits counts."""
    return {name.casefold(): value for name, value in pairs}


def case_insensitive_first(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {name.casefold(): value for name, value in reversed(pairs)}


READERS = (first_wins, dict, case_insensitive, case_insensitive_first)


@given(objects(), st.sampled_from(["", "", "", " ", "x", "{}", "\x00", ","]))
@example('{"model":"a","model":"b"}', "")
@example('{"model":"a","\\u006dodel":"b"}', "")
@example('{"model":"a","Model":"b"}', "")
@example('{"ta\u017fks":1,"tasks":2}', "")
@THOROUGH
def test_every_reader_reads_what_is_billed_alike(text: str, behind: str) -> None:
    body = (text + behind).encode(errors="surrogatepass")
    try:
        fields = parse_object(body, BILLED)
    except ApiError:
        return
    for reader in READERS:
        read = json.loads(body, object_pairs_hook=reader)
        assert {name: repr(read.get(name)) for name in BILLED} == {
            name: repr(fields.get(name)) for name in BILLED
        }
    assert repr(json.loads(body)) == repr(fields)


@given(objects())
@THOROUGH
def test_strict_readers_take_what_the_gate_takes(text: str) -> None:
    """One that is written in another language, with rules of its own for text and numbers."""
    body = text.encode(errors="surrogatepass")
    try:
        fields = parse_object(body, BILLED)
        strict = msgspec.json.decode(body)
    except (ApiError, msgspec.DecodeError):
        return  # it refuses more: half characters, numbers without end
    assert {name: repr(strict.get(name)) for name in BILLED} == {
        name: repr(fields.get(name)) for name in BILLED
    }


@given(objects(), st.data())
@THOROUGH
def test_both_of_our_readers_judge_alike(text: str, data: st.DataObject) -> None:
    """The quick one and the slow one; also of what is cut, or has a byte too many or changed."""
    body = bytearray(text.encode(errors="surrogatepass"))
    position = data.draw(st.integers(0, len(body)))
    change = data.draw(st.sampled_from(["none", "cut", "insert", "flip"]))
    if change == "cut":
        del body[position:]
    elif change == "insert":
        body.insert(position, data.draw(st.integers(0, 255)))
    elif change == "flip" and position < len(body):
        body[position] ^= 1 << data.draw(st.integers(0, 7))
    assert judged(json_gate._read, bytes(body)) == judged(read_slowly, bytes(body))


def judged(read: Any, body: bytes) -> str:  # noqa: ANN401 - either of two
    try:
        return repr(read(body))
    except (ValueError, RecursionError):
        return "refused"
