"""Owns what an operator may do to providers and their keys on pages, as the command line does it.

A provider is named by its name, a key of it by its id. Each act is noted in the words of the
command line; a secret is in none of them.
"""

from collections.abc import Mapping
from typing import NamedTuple

from llmproxy import key_pool
from llmproxy.config import Paths, find_spent_pipe
from llmproxy.dashboard.admin.words import given, read_text
from llmproxy.dashboard.errors import FormError, MissingError
from llmproxy.dashboard.signed_in import SignedIn
from llmproxy.errors import VaultError
from llmproxy.key_pool import ProviderKey
from llmproxy.presets import PRESETS
from llmproxy.sealing import sealing_key_or_new
from llmproxy.storage.database import Tx

STATES = {"disable": "disabled", "enable": "active"}


class NewProviderKey(NamedTuple):
    """A provider's key that is to be stored."""

    secret: str
    name: str | None
    """None lets it be called key-1, key-2, …"""

    def __repr__(self) -> str:  # type: ignore[explicit-override]
        """Say what it is called, and never the secret."""
        return f"NewProviderKey({self.name!r})"


def require_known(tx: Tx, name: str) -> None:
    """Let providers pass that are set up, or need only a key to be.

    Raises:
        MissingError: it is neither.
    """
    if name not in PRESETS and key_pool.find_provider(tx, name) is None:
        raise MissingError


def find_key(tx: Tx, provider: str, key_id: int) -> ProviderKey:
    """Return a provider's key by its id.

    Raises:
        MissingError: the provider has none with this id.
    """
    for key in key_pool.list_provider_keys(tx, provider):
        if key.id == key_id:
            return key
    raise MissingError


def pause(tx: Tx, signed_in: SignedIn, name: str, form: Mapping[str, str]) -> None:
    """Refuse requests to a provider until it is resumed.

    Raises:
        FormError: no reason is given; users see it in their error message.
    """
    require_known(tx, name)
    reason = read_text(form, "reason", "Reason")
    if not reason:
        raise FormError("Give a reason: users see it in their error message.")
    key_pool.pause_provider(tx, name, reason=reason, actor=signed_in.actor, now_ms=signed_in.now_ms)
    signed_in.note(tx, "providers pause", given(name, reason=reason))


def resume(tx: Tx, signed_in: SignedIn, name: str) -> None:
    """Let requests through to a provider again."""
    require_known(tx, name)
    key_pool.resume_provider(tx, name, actor=signed_in.actor, now_ms=signed_in.now_ms)
    signed_in.note(tx, "providers resume", given(name))


def read_new_key(form: Mapping[str, str]) -> NewProviderKey:
    """Return the key that a form has. What is no key is refused when it is stored."""
    return NewProviderKey(form.get("secret", ""), form.get("name") or None)


def add_key(
    tx: Tx, signed_in: SignedIn, provider: str, wanted: NewProviderKey, paths: Paths
) -> None:
    """Seal a provider's key and store it; the first one of all makes the master key.

    Reads files, and may write them: not for the serving loop.

    Raises:
        RefusedError: it cannot be a key, or its name cannot be one or is taken.
        VaultError: it cannot be sealed.
    """
    require_known(tx, provider)
    _refuse_pipe(paths)
    key_pool.add_provider_key(
        tx,
        provider,
        wanted.secret,
        name=wanted.name,
        vault=sealing_key_or_new(tx, paths).vault(),
        actor=signed_in.actor,
        now_ms=signed_in.now_ms,
    )
    signed_in.note(tx, "provider-keys add", given(provider, name=wanted.name))


def _refuse_pipe(paths: Paths) -> None:
    """Refuse a master key that came through a pipe: to wait for it would be in a transaction."""
    pipe = find_spent_pipe(paths)
    if pipe is not None:
        msg = (
            f"The master key comes from {pipe}, which says it only once. Add the key with: "
            "llmproxy provider-keys add"
        )
        raise VaultError(msg)


def set_key_state(
    tx: Tx, signed_in: SignedIn, provider: str, key_id: int, act: str, reason: str
) -> None:
    """Disable or enable a provider's key."""
    key = find_key(tx, provider, key_id)
    key_pool.set_key_state(
        tx,
        key.id,
        STATES[act],
        reason=reason or None,
        actor=signed_in.actor,
        now_ms=signed_in.now_ms,
    )
    words = given(provider, key.name, reason=reason or None)
    signed_in.note(tx, f"provider-keys {act}", words)


def remove_key(tx: Tx, signed_in: SignedIn, provider: str, key_id: int) -> None:
    """Forget a provider's key and its sealed secret."""
    key = find_key(tx, provider, key_id)
    key_pool.remove_provider_key(
        tx, provider, key.name, actor=signed_in.actor, now_ms=signed_in.now_ms
    )
    signed_in.note(tx, "provider-keys remove", given(provider, key.name))
