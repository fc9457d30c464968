"""Owns what a signed-in user may do with their own API keys.

A key is named by its id, which is looked for among the user's own: another's is as missing as one
that never was. What is changed is changed by the functions that the command line uses.
"""

from shlex import quote
from typing import NamedTuple

from llmproxy import accounts, key_lists, limit_store, reports
from llmproxy.accounts import ApiKey, User
from llmproxy.dashboard.errors import FormError, MissingError
from llmproxy.dashboard.formats import DAY_MS
from llmproxy.dashboard.key_form import HOUR_MS, NewKey
from llmproxy.dashboard.key_tables import AskedPages, KeyRow, KeyTables, make_row, read_tables
from llmproxy.dashboard.signed_in import SignedIn
from llmproxy.reports import LimitsUse
from llmproxy.storage.database import Tx

LIVE_KEYS_MAX = 50
KEYS_PER_DAY_MAX = 100
ENDED_ROWS = 20
ID_MAX = 2**63 - 1
"""The largest number that the database takes."""


class KeyDetails(NamedTuple):
    """One API key, and what is used of its limits."""

    row: KeyRow
    use: LimitsUse | None
    is_live: bool
    may_rotate: bool


def read_keys(tx: Tx, signed_in: SignedIn, asked: AskedPages) -> KeyTables:
    """Return the API keys of who is signed in."""
    rows = {"live_max": LIVE_KEYS_MAX, "ended_max": ENDED_ROWS}
    return read_tables(tx, signed_in.user, asked, now_ms=signed_in.now_ms, **rows)


def read_key(tx: Tx, signed_in: SignedIn, key_id: int, answer_s_max: int) -> KeyDetails:
    """Return one API key of who is signed in.

    `answer_s_max` is how long an answer may take; the shorter, the fewer rows are read.

    Raises:
        MissingError: they have none with this id.
    """
    key, now_ms = _own_key(tx, signed_in, key_id), signed_in.now_ms
    use = None
    if key.limits is not None:
        use = reports.find_limits_use(
            tx, signed_in.user.id, key.limits, now_ms=now_ms, answer_s_max=answer_s_max
        )
    row = make_row(key, reports.last_used_days(tx, signed_in.user.id), now_ms)
    return KeyDetails(row, use, _is_live(key, now_ms), _may_rotate(key, now_ms))


def create_key(tx: Tx, signed_in: SignedIn, wanted: NewKey) -> str:
    """Make an API key for who is signed in, and return it: the only time that it can be seen.

    Raises:
        FormError: the name is taken, or there are too many.
        RefusedError: the name is none.
    """
    user, now_ms = signed_in.user, signed_in.now_ms
    live = key_lists.count_live_keys(tx, user, now_ms=now_ms)
    if live >= LIVE_KEYS_MAX:
        raise FormError(f"You have {live} API keys, which is the most. Revoke one first.")
    _require_not_too_many(tx, signed_in)
    if key_lists.count_live_keys(tx, user, now_ms=now_ms, name=wanted.name):
        raise FormError(
            f"You have an API key named {wanted.name!r} already. Choose another name, or rotate "
            "that one."
        )
    secret = accounts.create_api_key(
        tx, user, wanted.name, now_ms=now_ms, expires_at_ms=wanted.expires_at_ms
    )
    if wanted.limits:
        made = accounts.find_live_keys(tx, user, wanted.name, now_ms=now_ms)
        limit_store.set_key_limits(tx, [key.id for key in made], wanted.limits)
    signed_in.note(tx, "keys create", f"{user.name} --name {quote(wanted.name)}{wanted.words}")
    return secret


def rotate_key(tx: Tx, signed_in: SignedIn, key_id: int, overlap_ms: int) -> tuple[ApiKey, str]:
    """Replace an API key; return it and the new one: the only time that this can be seen.

    Raises:
        MissingError: they have no key with this id.
        FormError: it has ended, or been replaced already, or there were too many today.
    """
    key = _own_key(tx, signed_in, key_id)
    if not _may_rotate(key, signed_in.now_ms):
        raise FormError("This API key has been replaced or has ended. Look at the list.")
    _require_not_too_many(tx, signed_in)
    secret = accounts.rotate_api_key(
        tx, signed_in.user, key.name, now_ms=signed_in.now_ms, overlap_ms=overlap_ms
    )
    overlap = f" --overlap {overlap_ms // HOUR_MS}h" if overlap_ms else ""
    signed_in.note(tx, "keys rotate", f"{signed_in.user.name} {quote(key.name)}{overlap}")
    return key, secret


def revoke_key(tx: Tx, signed_in: SignedIn, key_id: int) -> str:
    """End an API key at once; return its name.

    One that is being replaced ends alone, any other with those that it replaced.

    Raises:
        MissingError: they have no key with this id.
        FormError: it has ended already.
    """
    key = _own_key(tx, signed_in, key_id)
    if not _is_live(key, signed_in.now_ms):
        raise FormError("This API key has ended already.")
    end_key(tx, signed_in, signed_in.user, key)
    return key.name


def end_key(tx: Tx, signed_in: SignedIn, user: User, key: ApiKey) -> None:
    """End a key that works, as it was pointed at, and note it."""
    words = f"{user.name} {quote(key.name)}"
    if key.state(signed_in.now_ms) == "replaced":
        accounts.end_api_key(tx, key, now_ms=signed_in.now_ms)
        words += f" ({key.masked}, which was replaced)"
    else:
        accounts.revoke_api_key(tx, user, key.name, now_ms=signed_in.now_ms)
    signed_in.note(tx, "keys revoke", words)


def _own_key(tx: Tx, signed_in: SignedIn, key_id: int) -> ApiKey:
    key = None
    if abs(key_id) <= ID_MAX:
        key = accounts.find_api_key(tx, signed_in.user, key_id)
    if key is None:
        raise MissingError
    return key


def _require_not_too_many(tx: Tx, signed_in: SignedIn) -> None:
    """Keep a user from filling the table: rows of keys are never deleted."""
    since_ms = signed_in.now_ms - DAY_MS
    made = key_lists.count_keys_made(tx, signed_in.user, since_ms=since_ms, limit=KEYS_PER_DAY_MAX)
    if made >= KEYS_PER_DAY_MAX:
        raise FormError(f"{made} API keys were made within a day, which is the most. Wait a day.")


def _is_live(key: ApiKey, now_ms: int) -> bool:
    return key.ends_at_ms is None or key.ends_at_ms > now_ms


def _may_rotate(key: ApiKey, now_ms: int) -> bool:
    return key.revoked_at_ms is None and _is_live(key, now_ms)
