"""Owns `stored_responses`: what providers keep of answers, whose it is, and which key made it.

A response that a provider keeps lives in the account of one provider key, which several users
share. So it is looked up by its user: what another one made is not there. Only a hash of its id is
kept. Rows are written in the transaction that settles the response's request, and dropped when the
provider has dropped the response: some of the oldest with every so many new ones. Must not touch
money.
"""

import hashlib
from typing import NamedTuple

import msgspec

from llmproxy.storage.database import Tx

KEPT_MS = 30 * 86_400_000
"""OpenAI and xAI keep a response for 30 days, as their documentation says."""
SWEEP_EVERY = 32
"""New rows between two looks for old ones."""
DROPPED_AT_ONCE = 2 * SWEEP_EVERY
"""At most so many old rows go at once: more than come, and nobody waits long for it."""


class KeptResponse(msgspec.Struct, frozen=True):
    """What the end of a request says of an answer that its provider keeps."""

    response_hash: bytes
    tokens: int
    """All input and output: what a request that goes on from it makes the provider read again."""


class StoredResponse(NamedTuple):
    """A response that a user may go on from."""

    provider_key_id: int
    """The one key that can."""
    model: str
    """The catalog's id of the model that counted its tokens."""
    tokens: int


def hash_response_id(response_id: str) -> bytes:
    """Return what is kept of an id: 32 bytes."""
    return hashlib.sha256(response_id.encode()).digest()


def remember(
    tx: Tx,
    kept: KeptResponse,
    *,
    user_id: int,
    provider: str,
    provider_key_id: int,
    model: str,
    now_ms: int,
) -> None:
    """Note a response that its provider keeps; of two with one id the later one counts."""
    row_id = tx.execute(
        """INSERT OR REPLACE INTO stored_responses(user_id, provider, response_hash,
             provider_key_id, model, tokens, created_at_ms) VALUES(?, ?, ?, ?, ?, ?, ?)""",
        (user_id, provider, kept.response_hash, provider_key_id, model, kept.tokens, now_ms),
    ).lastrowid
    if row_id is not None and row_id % SWEEP_EVERY == 0:
        _drop_old(tx, now_ms)


def _drop_old(tx: Tx, now_ms: int) -> None:
    """Drop those of the first rows that are old; ids rise with time."""
    tx.execute(
        """DELETE FROM stored_responses
           WHERE id < (SELECT min(id) FROM stored_responses) + ? AND created_at_ms < ?""",
        (DROPPED_AT_ONCE, now_ms - KEPT_MS),
    )


def find(
    tx: Tx, user_id: int, provider: str, response_id: str, now_ms: int
) -> StoredResponse | None:
    """Return a response of this user that the provider still keeps, None when there is none."""
    row = tx.execute(
        """SELECT provider_key_id, model, tokens FROM stored_responses
           WHERE user_id = ? AND provider = ? AND response_hash = ? AND created_at_ms >= ?""",
        (user_id, provider, hash_response_id(response_id), now_ms - KEPT_MS),
    ).fetchone()
    return None if row is None else StoredResponse(*row)
