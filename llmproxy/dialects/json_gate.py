"""Owns the gate that makes sure that what we price is what the provider reads.

JSON that two parsers could read differently is refused: duplicate keys anywhere (also by escapes),
twins of billed keys in another case, NaN, other encodings (reference security.md S13). Also writes
single members into a body without touching its other bytes. Bodies made of very many values are
read by `json_slowly`, by the same rules.
"""

import json
from collections.abc import Collection, Sequence
from typing import Any

from llmproxy.dialects.json_slowly import (
    AmbiguousError,
    OversizeError,
    lexemes,
    no_constant,
    no_duplicates,
    read_slowly,
)
from llmproxy.errors import ApiError, invalid_request
from llmproxy.usage import TOKENS_MAX

LOOP_BYTES = 64 * 1024
"""Whatever is in a body up to here, reading it takes some 20 ms at most; larger ones are read in a
thread."""
_LIGHT_BYTES = 4 * 1024 * 1024
_LIGHT_VALUES = 64 * 1024
_LIGHT_ESCAPES = 512 * 1024


def parse_object(body: bytes, billed: Collection[str]) -> dict[str, Any]:
    """Return the body's top-level object.

    Args:
        body: the request body.
        billed: top-level keys that money depends on; another spelling of one is refused.

    Raises:
        ApiError: 400, when the body is not one unambiguous JSON object in UTF-8.
    """
    try:
        value = _read(body) if is_light(body) else read_slowly(body)
    except AmbiguousError as error:
        raise invalid_request(f"The request body is ambiguous JSON: {error}.") from error
    except OversizeError as error:
        raise invalid_request(f"The request body cannot be checked: {error}.") from error
    except UnicodeDecodeError as error:
        raise invalid_request("The request body is not UTF-8.") from error
    except RecursionError as error:
        raise invalid_request("The request body is nested too deeply.") from error
    except ValueError as error:
        raise invalid_request("The request body is not valid JSON.") from error
    if not isinstance(value, dict):
        raise invalid_request("The request body must be a JSON object.")
    for key in value:
        if key not in billed and key.casefold() in billed:
            raise invalid_request(f"The field {key!r:.60} must be written in lower case.")
    return value


def is_light(body: bytes) -> bool:
    """Say whether the standard parser, which keeps other threads waiting, is through in no time.

    Others are read slowly, by steps that let other threads in: one such body at a time is enough.
    """
    if len(body) <= 2 * _LIGHT_VALUES:  # each takes two bytes, with its comma or its bracket
        return True
    if len(body) > _LIGHT_BYTES or body.count(b"\\") > _LIGHT_ESCAPES:
        return False
    # Also those in texts, so never too few.
    return body.count(b",") + body.count(b"[") + body.count(b"{") <= _LIGHT_VALUES


_decoder = json.JSONDecoder(object_pairs_hook=no_duplicates, parse_constant=no_constant)


def _read(body: bytes) -> object:
    return _decoder.decode(body.decode())


def text(fields: dict[str, Any], key: str) -> str | None:
    """Return a text member, or None when it is absent or null.

    Raises:
        ApiError: 400, when it is not text.
    """
    value = fields.get(key)
    if value is None:
        return None
    if not isinstance(value, str) or not 0 < len(value) <= 256 or not is_unicode(value):
        raise _wrong(key, "text of 1 to 256 characters")
    return value


def required_model(fields: dict[str, Any]) -> str:
    """Return the member `model`.

    Raises:
        ApiError: 400, when it is missing or no text. Azure's servers do without it where the path
            names a deployment.
    """
    model = text(fields, "model")
    if model is None:
        message = (
            "`model` must be in the body, as text of 1 to 256 characters: a deployment in the path "
            "is not read."
        )
        raise invalid_request(message, param="model")
    return model


def is_unicode(value: str) -> bool:
    """Say whether a text can be written as UTF-8; JSON's escapes can spell half characters."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def flag(fields: dict[str, Any], key: str) -> bool:
    """Return a boolean member; absent and null count as false.

    Raises:
        ApiError: 400, when it is anything else.
    """
    value = fields.get(key)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise _wrong(key, "true or false")
    return value


def whole(fields: dict[str, Any], key: str, *, lowest: int, highest: int) -> int | None:
    """Return a whole-number member, or None when it is absent or null.

    Raises:
        ApiError: 400, when it is not a whole number within the bounds.
    """
    value = fields.get(key)
    if value is None:
        return None
    if type(value) is not int or not lowest <= value <= highest:
        raise _wrong(key, f"a whole number from {lowest} to {highest}")
    return value


def maximum(fields: dict[str, Any], key: str) -> int | None:
    """Return a maximum of output tokens, or None when none is set.

    There are servers that read 0 as "not set": it counts as none.

    Raises:
        ApiError: 400, when it is not a whole number from 0 to TOKENS_MAX.
    """
    return whole(fields, key, lowest=0, highest=TOKENS_MAX) or None


def _wrong(key: str, wanted: str) -> ApiError:
    return invalid_request(f"`{key}` must be {wanted}.", param=key)


def with_member(body: bytes, key: str, value: object) -> bytes:
    """Return the body with one top-level member set, every other byte as it was.

    The body has passed `parse_object`: it is a JSON object with `key` in it at most once.
    """
    encoded = json.dumps(value, separators=(",", ":")).encode()
    span = _member_span(body, key)
    if span is None:
        return with_new_member(body, key, value)
    return body[: span[0]] + encoded + body[span[1] :]


def with_new_member(body: bytes, key: str, value: object) -> bytes:
    """Return the body with a top-level member that it surely lacks, whatever its size in no time.

    The body has passed `parse_object`, whose result does not have `key`.
    """
    start = body.index(b"{") + 1
    is_empty = next(lexemes(body, start))[0] == b"}"
    member = json.dumps({key: value}, separators=(",", ":")).encode()[1:-1]
    return body[:start] + member + (b"" if is_empty else b",") + body[start:]


def with_output_max(
    body: bytes, members: Collection[str], tokens: int, *, read: Sequence[str]
) -> bytes:
    """Return the body with a maximum of output tokens that is nowhere above `tokens`.

    Of `members` those that the body sets are lowered; when none of `read`, the ones that the
    provider surely reads, is among them, the first of those is set. 0 and null set nothing. The
    body has passed `parse_object`, and what it sets are whole numbers.
    """
    fields = parse_object(body, ())
    limits = {member: fields[member] for member in members if fields.get(member)}
    if limits.keys().isdisjoint(read):
        limits[read[0]] = tokens
    for member, limit in limits.items():
        body = with_member(body, member, min(limit, tokens))
    return body


def with_output_max_within(
    body: bytes, within: str, members: Collection[str], tokens: int, *, read: Sequence[str]
) -> bytes:
    """Do as `with_output_max` in an object that is a member of the body, made if it is not there.

    The body has passed `parse_object`, and the member is an object, null, or absent. There `read`
    are ways to write one name: one that stands there with 0 or null is overwritten.
    """
    span = _member_span(body, within)
    inner = b"null" if span is None else body[span[0] : span[1]]
    if span is None or inner == b"null":
        return with_member(body, within, {read[0]: tokens})
    fields = parse_object(inner, ())
    read = sorted(read, key=lambda name: name not in fields)
    inner = with_output_max(inner, members, tokens, read=read)
    return body[: span[0]] + inner + body[span[1] :]


def _member_span(body: bytes, key: str) -> tuple[int, int] | None:
    """Return where the value of a top-level member begins and ends."""
    depth = 0
    name: str | None = None
    is_name_next = is_found = False
    start: int | None = None
    last_end = 0
    for kind, begin, end in lexemes(body):
        if depth == 1 and kind in {b",", b"}"}:
            if start is not None:
                return start, last_end
            is_name_next = True
        elif is_found and start is None and kind != b":":
            start = begin
        if kind in {b"{", b"["}:
            depth += 1
            is_name_next = is_name_next or depth == 1
        elif kind in {b"}", b"]"}:
            depth -= 1
        elif is_name_next and kind == b'"':
            name = json.loads(body[begin:end])
            is_found = name == key
            is_name_next = False
        last_end = end
    return None
