"""Owns what all dialects need to read an answer, whole or by its events, as far as money goes.

The bill depends on few members. What is odd about any other one must not keep them from being
read: members that are only passed through are never looked into (`msgspec.Raw`), and of what is
still no answer of its dialect each member is taken for itself (`rescued`).
"""

import json
from collections.abc import Callable
from typing import TypeVar, get_args

import msgspec

from llmproxy.dialects.base import Reading, written_bytes
from llmproxy.usage import Movers, Usage, UsageError

T = TypeVar("T", bound=msgspec.Struct)

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for JSON that is none, of another shape, or nested without end."""
ABSENT = msgspec.Raw()
"""A member that an answer does not have."""
NO_COUNTS = "usage has no token counts"
"""Of a record without what every answer has: input and output, or their total."""
CALL_BYTES = 30
"""What the call of a tool counts for besides its name and arguments: what stands around them."""
MENDED_BYTES_MAX = 1024 * 1024
"""A longer text is not mended, which takes some 20 ms for a MiB and keeps everybody waiting."""

_NULL = b"null"
_text_decoder = msgspec.json.Decoder(str)
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])


def is_given(raw: msgspec.Raw) -> bool:
    """Say whether a member is there and not null."""
    return raw is not ABSENT and (len(raw) != len(_NULL) or bytes(raw) != _NULL)


def text_of(raw: msgspec.Raw) -> str | None:
    """Return a member that is text; None when it is absent, empty, or anything else."""
    if raw is ABSENT:
        return None
    try:
        return _text_decoder.decode(raw) or None
    except UNREADABLE:
        return None


def text_bytes(raw: msgspec.Raw) -> int:
    r"""Return how many bytes the text of a JSON string has, at least; null and absent are 0.

    Of a string without `\uXXXX` that is its length without quotes, which other escapes make a
    little longer. With some, it is read: they are up to six times as long as what they stand for.
    """
    length = len(raw)
    if length <= 2:
        return 0
    written = bytes(raw)
    if written.find(b"\\u") >= 0:  # which is quicker than `in`, and asked for each event
        try:
            text = msgspec.json.decode(written)
        except UNREADABLE:  # bytes that are no characters, which nobody looked at before
            text = None
        return len(text.encode()) if isinstance(text, str) else written_bytes(written)
    return length - 2 if written != _NULL else 0


def call_bytes(name: msgspec.Raw) -> int:
    """Return what the beginning of a tool's call, told by its name, counts for; without one 0."""
    named = text_bytes(name)
    return named + CALL_BYTES if named else 0


def generated_bytes(body: bytes, parts: list[msgspec.Raw] | None) -> int:
    """Return how much of a plain answer counts as generated text: the JSON of these parts of it."""
    if parts is None:
        return 0
    if b"\\" in body and b"\\u" in body:  # one byte is found much more quickly than two
        return sum(written_bytes(bytes(part)) for part in parts)
    return sum(map(len, parts))


def unreadable(body: bytes) -> Reading:
    """Return what can be said of a plain answer that is not the JSON of its dialect."""
    problem = "the answer is not the expected JSON" if body else None
    return Reading(seen_bytes=written_bytes(body), problem=problem)


def decoded(decoder: msgspec.json.Decoder[T], written: bytes) -> tuple[T, bool]:
    """Return an answer or event, and whether all of it could be read; see `rescued`."""
    try:
        return decoder.decode(written), True
    except UNREADABLE:
        return rescued(decoder.type, written)


def decoded_all(decoder: msgspec.json.Decoder[T], datas: list[bytes]) -> list[T] | None:
    """Return several events; None where one of them cannot be read."""
    decode = decoder.decode
    try:
        return [decode(data) for data in datas]
    except UNREADABLE:
        return None


def rescued(kind: type[T], written: bytes) -> tuple[T, bool]:
    """Return what can be read of an answer or event that is not of its kind, and whether it is all.

    JSON that only others would read (NaN, half characters) is mended. Otherwise each member is
    read for itself, at any depth of objects, and one that is not as it should be is left out.
    """
    mended = _mended(written)
    try:
        return msgspec.json.decode(mended, type=kind), True
    except UNREADABLE:
        pass
    try:
        members = _members.decode(mended)
    except UNREADABLE:
        return kind(), False
    read: dict[str, object] = {}
    for field in msgspec.structs.fields(kind):
        raw = members.get(field.encode_name)
        if raw is None:
            continue
        try:
            read[field.name] = msgspec.json.decode(raw, type=field.type)
        except UNREADABLE:
            for inner in get_args(field.type):
                if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
                    read[field.name] = rescued(inner, bytes(raw))[0]
    return kind(**read), False


def _mended(written: bytes) -> bytes:
    """Return JSON with their names for NaN and Infinity, and no halves of characters, if it is any.

    Python's parser reads both, as those do that write them. A name is no count of tokens, either.
    """
    if len(written) > MENDED_BYTES_MAX:
        return written
    try:
        value = json.loads(written, parse_constant=str)
    except (ValueError, RecursionError):
        return written
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    # Halves that belong together become one character, others the sign for none.
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode()


def make_reading(
    raw_usage: bytes | None,
    read_usage: Callable[[], Usage],
    *,
    model: str | None,
    movers: Movers,
    seen_bytes: int,
    is_final: bool,
    has_error: bool,
) -> Reading:
    """Return what has been read of an answer; one whose usage cannot be true says why.

    Args:
        raw_usage: the usage record as it came; None when there is none.
        read_usage: returns it in the normal form; raises UsageError, or what msgspec raises.
        model: the model that answered.
        movers: what the answer said of its tier, speed and region.
        seen_bytes: how much generated text has passed.
        is_final: nothing more can come that changes the usage.
        has_error: the answer is, or ended in, an error.
    """
    usage: Usage | None = None
    problem: str | None = None
    if raw_usage is not None:
        try:
            usage = read_usage()
            refuse_zero(usage, seen_bytes)
        except (*UNREADABLE, UsageError) as error:
            usage, problem = None, str(error)
    return Reading(
        usage=usage,
        raw_usage=raw_usage,
        is_final=is_final and usage is not None,
        model=model,
        seen_bytes=seen_bytes,
        movers=movers,
        has_error=has_error,
        problem=problem,
    )


def refuse_zero(usage: Usage, seen_bytes: int) -> None:
    """Check that an answer with text was not reported as no tokens, nor units, at all.

    Raises:
        UsageError: it was.
    """
    if not seen_bytes:
        return
    for leg in usage.legs:
        if leg.output or leg.input_side or leg.audio_seconds or leg.images or leg.characters:
            return
    msg = "usage reports no tokens for an answer with text"
    raise UsageError(msg)
