"""Owns what an `Idempotency-Key` promises: one answer is paid for, however often it is asked for.

What a key is, what makes a request the same one again, and what a repeat is told. The hold keeps
both hashes; an earlier hold with the same key is found in the transaction that places the next
(`ledger.py`). Bodies and answers are never stored, so a repeat cannot be given the first answer.
"""

import hashlib
from functools import partial
from typing import NamedTuple

from llmproxy.body_reader import BodyReader
from llmproxy.clock import request_id_text
from llmproxy.dialects.multipart_gate import boundary_of
from llmproxy.errors import ApiError, invalid_request
from llmproxy.headers import Headers
from llmproxy.ledger import EarlierHold
from llmproxy.money import format_usd

HEADER = b"idempotency-key"
KEY_BYTES_MAX = 255
IN_USE_RETRY_AFTER_S = 2
"""For a repeat of a running request: soon enough for those that fail, and then cost nothing."""


class Once(NamedTuple):
    """What is kept of a request to be paid once: SHA-256 of its key, and of what it asks."""

    key_hash: bytes
    body_hash: bytes


def given_keys(headers: Headers) -> list[bytes]:
    """Return the idempotency keys of a request: mostly none, which must cost no time."""
    return [value for name, value in headers if name == HEADER]


async def read_once(keys: list[bytes], target: str, body: bytes, bodies: BodyReader) -> Once:
    """Return what a request with an idempotency key is known by.

    Args:
        keys: what it gives as its key, at least one.
        target: provider and endpoint: the same body elsewhere is another request.
        body: as the client sent it.
        bodies: where long ones are read.

    Raises:
        ApiError: 400, the key is empty or too long, or there are several.
    """
    if len(set(keys)) > 1:
        msg = "The request has several Idempotency-Key headers. Send one."
        raise invalid_request(msg)
    key = keys[0]
    if not 0 < len(key) <= KEY_BYTES_MAX:
        msg = f"The Idempotency-Key has {len(key)} bytes. Use 1 to {KEY_BYTES_MAX}, such as a UUID."
        raise invalid_request(msg)
    return await bodies.run(body, partial(_hash, key, target, body))


def _hash(key: bytes, target: str, body: bytes) -> Once:
    asked = hashlib.sha256(target.encode() + b"\0")
    boundary = boundary_of(body)
    if boundary is None:
        asked.update(body)
    else:  # clients draw another one whenever they build the same form
        for piece in body.split(b"--" + boundary):
            asked.update(b"%d:" % len(piece))
            asked.update(piece)
    return Once(hashlib.sha256(key).digest(), asked.digest())


def idempotency_key_taken(earlier: EarlierHold, body_hash: bytes | None) -> ApiError:
    """Return what a request is told whose idempotency key an earlier one has.

    SDKs try a 409 again by themselves, which helps only while the earlier one runs: it may yet fail
    and free the key, and if not, the next answer says what it cost.
    """
    first = request_id_text(earlier.hold_id)
    cost = None if earlier.cost_nanousd is None else format_usd(earlier.cost_nanousd)
    fields: dict[str, object] = {
        "first_request_id": first,
        "first_state": earlier.state,
        "first_cost_usd": cost,
    }
    if earlier.body_hash != body_hash:
        return ApiError(
            422,
            "idempotency_key_reused",
            f"This Idempotency-Key belongs to request {first}, which was another one (endpoint or "
            "body differ). Use a new key for each new request.",
            fields=fields,
        )
    if cost is None:
        return ApiError(
            409,
            "idempotency_key_in_use",
            f"A request with this Idempotency-Key is still running: {first}. This one was not sent "
            "again and costs nothing.",
            should_retry=True,
            retry_after_s=IN_USE_RETRY_AFTER_S,
            fields=fields,
        )
    return ApiError(
        409,
        "idempotency_key_used",
        f"This Idempotency-Key was used by request {first}, which is {earlier.state} and cost "
        f"{cost} USD. Answers are not stored, so it cannot be given again. To ask anew, use a new "
        "key.",
        fields=fields,
    )
