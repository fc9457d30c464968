"""Owns what an operator may do to users on pages: by the functions that the command line uses.

Users are named by their ids. Each act is noted in the words of the command line.
"""

from collections.abc import Callable, Mapping, Sequence

from llmproxy import accounts, crediting, reports, sessions
from llmproxy.accounts import User
from llmproxy.dashboard.admin.user_forms import read_amount, read_changes
from llmproxy.dashboard.admin.words import given
from llmproxy.dashboard.errors import FormError, MissingError
from llmproxy.dashboard.keys import ID_MAX, end_key
from llmproxy.dashboard.signed_in import SignedIn
from llmproxy.reports import CreditEntry
from llmproxy.storage.database import Tx
from llmproxy.user_changes import NewUser, UserChanges, change_user, make_user, resume_api_key

MINUS = "A credit must be above zero. To take money back, “Correct the balance…” below does it."


class RepeatError(FormError):
    """The same form has come before, as by a double click: it has counted once."""


def find_user(tx: Tx, user_id: int) -> User:
    """Return a user by their id.

    Raises:
        MissingError: there is none.
    """
    name = reports.find_user_name(tx, user_id) if abs(user_id) <= ID_MAX else None
    if name is None:
        raise MissingError
    return accounts.find_user(tx, name)


def create(tx: Tx, signed_in: SignedIn, wanted: NewUser, words: str) -> tuple[User, str | None]:
    """Make a user; return them and their first API key: the only time that it can be seen."""
    user, api_key = make_user(tx, wanted, actor=signed_in.actor, now_ms=signed_in.now_ms)
    signed_in.note(tx, "users create", words)
    return user, api_key


def add_credit(tx: Tx, signed_in: SignedIn, user_id: int, form: Mapping[str, str]) -> None:
    """Add credit, once for each form.

    Raises:
        FormError, MoneyError: it is no credit.
        RepeatError: this form has been counted before; nothing is added.
    """
    user, amount = find_user(tx, user_id), read_amount(form)
    if amount.nanousd < 0:
        raise FormError(MINUS)
    credited = crediting.credit(
        tx,
        user.wallet_id,
        amount.nanousd,
        actor=signed_in.actor,
        reason=amount.reason or None,
        now_ms=signed_in.now_ms,
        idempotency_key=amount.once,
    )
    if credited.is_repeat:
        raise RepeatError
    words = given(user.name, amount.typed, reason=amount.reason or None)
    signed_in.note(tx, "credits add", words)


def adjust(tx: Tx, signed_in: SignedIn, user_id: int, form: Mapping[str, str]) -> None:
    """Correct a balance up or down.

    Raises:
        MoneyError: the amount is none.
        FormError: it was credited or corrected since the form was shown, as by a double click.
    """
    user, amount = find_user(tx, user_id), read_amount(form)
    if amount.once != last_entry(reports.list_credits(tx, user.wallet_id, limit=1)):
        raise FormError(
            "The balance was credited or corrected since this form was shown, perhaps by this very "
            "form. Look at the history below, then send it again if it is still right."
        )
    crediting.adjust(
        tx,
        user.wallet_id,
        amount.nanousd,
        actor=signed_in.actor,
        reason=amount.reason,
        now_ms=signed_in.now_ms,
    )
    signed_in.note(tx, "credits adjust", given(user.name, by=amount.typed, reason=amount.reason))


def last_entry(credits_: Sequence[CreditEntry]) -> str:
    """Return by what a form knows the history that it was shown with; credits, newest first."""
    return str(credits_[0].id) if credits_ else ""


def change_rates(tx: Tx, signed_in: SignedIn, user_id: int, form: Mapping[str, str]) -> None:
    """Change the multiplier and the limits of a user, as far as the form differs from them."""
    user = find_user(tx, user_id)
    changes, words = read_changes(form, user)
    change_user(tx, user.name, changes, now_ms=signed_in.now_ms)
    signed_in.note(tx, "users set", words)


def make_link(tx: Tx, signed_in: SignedIn, user_id: int) -> tuple[User, str]:
    """Make a sign-in link; return whose, and its secret: the only time that it can be seen."""
    user = find_user(tx, user_id)
    secret = sessions.create_link(tx, user, now_ms=signed_in.now_ms)
    signed_in.note(tx, "users login-link", given(user.name))
    return user, secret


def act_on_key(tx: Tx, signed_in: SignedIn, user_id: int, key_id: int, act: str) -> None:
    """Revoke or resume an API key of a user.

    Raises:
        MissingError: there is no such act, user or key.
        FormError: it has ended, or is not suspended.
    """
    user = find_user(tx, user_id)
    key = accounts.find_api_key(tx, user, key_id) if abs(key_id) <= ID_MAX else None
    if key is None or act not in {"revoke", "resume"}:
        raise MissingError
    if key.state(signed_in.now_ms) in {"revoked", "expired"}:
        raise FormError("This API key has ended already.")
    if act == "revoke":
        end_key(tx, signed_in, user, key)
        return
    if not resume_api_key(tx, user, key.name, now_ms=signed_in.now_ms):
        raise FormError("This API key is not suspended.")
    signed_in.note(tx, "keys resume", given(user.name, key.name))


def _changing(changes: UserChanges) -> Callable[[Tx, SignedIn, User], None]:
    def act(tx: Tx, signed_in: SignedIn, user: User) -> None:
        change_user(tx, user.name, changes, now_ms=signed_in.now_ms)

    return act


def _sign_out(tx: Tx, signed_in: SignedIn, user: User) -> None:
    del signed_in
    sessions.end_all_sessions(tx, user)


_ACTS = {
    "disable": (_changing(UserChanges(is_disabled=True)), "users disable", ""),
    "enable": (_changing(UserChanges(is_disabled=False)), "users enable", ""),
    "admin": (_changing(UserChanges(is_admin=True)), "users set", " --admin"),
    "no-admin": (_changing(UserChanges(is_admin=False)), "users set", " --no-admin"),
    "no-password": (_changing(UserChanges(forgets_password=True)), "users set", " --no-password"),
    "sign-out": (_sign_out, "users sign-out", ""),
}
NOT_ONESELF = frozenset({"disable", "admin", "no-admin"})


def act_on(tx: Tx, signed_in: SignedIn, user_id: int, act: str) -> None:
    """Do what one of the plain buttons says.

    Raises:
        MissingError: there is no such act or user.
        FormError: an operator would lock themselves out.
    """
    user = find_user(tx, user_id)
    if act not in _ACTS:
        raise MissingError
    if act in NOT_ONESELF and user.id == signed_in.user.id:
        raise FormError(
            "You cannot disable yourself, nor change your own role: nobody might be left who "
            "could undo it. Another operator can, or the command line."
        )
    do, command, option = _ACTS[act]
    do(tx, signed_in, user)
    signed_in.note(tx, command, given(user.name) + option)
