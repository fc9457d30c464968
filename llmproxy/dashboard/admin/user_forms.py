"""Owns the operator's forms about users: what may stand in them, and what it means."""

from collections.abc import Mapping
from typing import NamedTuple

from llmproxy.accounts import User
from llmproxy.dashboard.admin.words import given, read_text
from llmproxy.dashboard.errors import FormError, StaleFormError
from llmproxy.dashboard.key_form import COUNTS, read_limit
from llmproxy.money import format_multiplier, parse_multiplier, parse_usd
from llmproxy.user_changes import NewUser, UserChanges

OPTIONS = {
    "requests_per_minute": "rpm",
    "tokens_per_minute": "tpm",
    "concurrent_max": "concurrent",
}
"""How the command line calls the limits that users have."""


class Amount(NamedTuple):
    """Money that is to be added, or taken."""

    nanousd: int
    typed: str
    reason: str
    once: str
    """What makes this form count once: for credit an idempotency key, for a correction the last
    entry of the history that the form was shown with."""


def read_new_user(form: Mapping[str, str]) -> tuple[NewUser, str]:
    """Return the user that a form asks for, and how the command line would.

    Raises:
        FormError: there is no name.
        MoneyError: an amount or the multiplier is none.
    """
    name = form.get("name", "")
    if not name:
        raise FormError("Give the user a name, such as ann.")
    factor, credit = form.get("rate_multiplier") or None, form.get("credit") or None
    key = form.get("key") or None
    wanted = NewUser(name)
    if factor is not None:
        wanted = wanted._replace(rate_multiplier_micro=parse_multiplier(factor))
    if credit is not None:
        wanted = wanted._replace(credit_nanousd=parse_usd(credit))
    words = given(name, rate_multiplier=factor, credit=credit, key=key)
    return wanted._replace(key=key), words


def read_amount(form: Mapping[str, str]) -> Amount:
    """Return what a form about a balance says.

    Raises:
        FormError: the reason is too long.
        MoneyError: the amount is none.
    """
    typed = form.get("amount", "")
    reason = read_text(form, "reason", "Reason")
    return Amount(parse_usd(typed), typed, reason, form.get("once", ""))


def read_changes(form: Mapping[str, str], user: User) -> tuple[UserChanges, str]:
    """Return what a form changes of a user's rate and limits, and how the command line would.

    Raises:
        FormError: a limit cannot be taken, or nothing is changed.
        StaleFormError: what the form showed is not so any more.
        MoneyError: the multiplier is none.
    """
    if form.get("seen") != rate_fields(user)["seen"]:
        raise StaleFormError(
            "It was changed elsewhere meanwhile, to what stands here now. Look again."
        )
    typed = form.get("rate_multiplier", "")
    multiplier: int | None = parse_multiplier(typed)
    options: dict[str, str | None] = {"rate_multiplier": typed}
    if multiplier == user.rate_multiplier_micro:
        multiplier = options["rate_multiplier"] = None
    limits: dict[str, object] = {}
    for field, label in COUNTS.items():
        text = form.get(field, "")
        wanted = read_limit(field, text, label) if text else None
        if wanted != getattr(user.limits, field, None):
            limits[field] = wanted
            options[OPTIONS[field]] = text or "none"
    if multiplier is None and not limits:
        raise FormError("Nothing is different from what it was.")
    changes = UserChanges(rate_multiplier_micro=multiplier, limits=limits)
    return changes, given(user.name, **options)


def rate_fields(user: User) -> dict[str, str]:
    """Return what stands in the form about rate and limits before anything is typed.

    `seen` is all of it: the form sends it back, and what has changed meanwhile is not undone.
    """
    fields = {"rate_multiplier": format_multiplier(user.rate_multiplier_micro)}
    for field in COUNTS:
        limit = getattr(user.limits, field, None)
        fields[field] = "" if limit is None else str(limit)
    fields["seen"] = " ".join(value or "-" for value in fields.values())
    return fields
