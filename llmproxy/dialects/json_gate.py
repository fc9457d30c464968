"""Owns the gate that makes sure that what we price is what the provider reads.

JSON that two parsers could read differently is refused: duplicate keys anywhere (also by escapes),
twins of billed keys in another case, NaN, other encodings (reference security.md S13). Also writes
single members into a body without touching its other bytes.
"""

import json
import re
from collections.abc import Collection
from typing import Any

from llmproxy.errors import ApiError, invalid_request

_FIRST_BYTE = re.compile(rb"\s*(.)", re.DOTALL)
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}\[\],:]', re.DOTALL)


class _AmbiguousError(ValueError):
    """The text is JSON, but not every parser would read it alike."""


def parse_object(body: bytes, billed: Collection[str]) -> dict[str, Any]:
    """Return the body's top-level object.

    Args:
        body: the request body.
        billed: top-level keys that money depends on; another spelling of one is refused.

    Raises:
        ApiError: 400, when the body is not one unambiguous JSON object in UTF-8.
    """
    try:
        value = json.loads(
            body.decode(), object_pairs_hook=_no_duplicates, parse_constant=_no_constant
        )
    except _AmbiguousError as error:
        raise invalid_request(f"The request body is ambiguous JSON: {error}.") from error
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


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        msg = f"the key {twice!r:.60} stands twice in one object"
        raise _AmbiguousError(msg)
    return found


def _no_constant(name: str) -> None:
    msg = f"{name} is not JSON"
    raise _AmbiguousError(msg)


def text(fields: dict[str, Any], key: str, *, required: bool = False) -> str | None:
    """Return a text member, or None when it is absent or null.

    Raises:
        ApiError: 400, when it is not text, or missing though required.
    """
    value = fields.get(key)
    if value is None and not required:
        return None
    if not isinstance(value, str) or not 0 < len(value) <= 256 or not is_unicode(value):
        raise _wrong(key, "text of 1 to 256 characters")
    return value


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
    first = _FIRST_BYTE.match(body, start)
    is_empty = first is not None and first[1] == b"}"
    member = json.dumps({key: value}, separators=(",", ":")).encode()[1:-1]
    return body[:start] + member + (b"" if is_empty else b",") + body[start:]


def _member_span(body: bytes, key: str) -> tuple[int, int] | None:
    """Return where the value of a top-level member begins and ends."""
    depth = 0
    is_name_next = False
    name: str | None = None
    start: int | None = None
    for match in _TOKEN.finditer(body):
        token = match.group()
        if depth == 1 and token in {b",", b"}"}:
            if start is not None:
                return start, len(body[: match.start()].rstrip())
            is_name_next = True
        elif token in {b"{", b"["}:
            depth += 1
            is_name_next = depth == 1
        elif token in {b"}", b"]"}:
            depth -= 1
        elif depth == 1 and token == b":" and name == key:
            value = body[match.end() :]
            start = match.end() + len(value) - len(value.lstrip())
            name = None
        elif is_name_next:
            name = json.loads(token)
            is_name_next = False
    return None
