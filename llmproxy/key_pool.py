"""Owns the rows of providers and their keys, and the states that take a key out of service.

What may take a key out of service, and what must not, is decided by `dialects/failures.py`
reading the provider's answer (reference wire.md E); this module keeps the states. Writers are
`f(tx, …)`; each change of a state leaves an event in the history. Must not talk to providers or
know money.
"""

import re
from shlex import quote

import msgspec

from llmproxy.errors import NotFoundError, RefusedError, VaultError
from llmproxy.presets import PRESETS, Preset
from llmproxy.provider_events import REASON_CHARS_MAX, ProviderEvent, add_event
from llmproxy.storage.database import Tx
from llmproxy.vault import Vault, mask

KEYLESS = b""
"""In place of a sealed secret: the provider needs no key. Needs no vault, and can leak nothing."""
KEYLESS_NAME = "none"


_KEY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@ -]{0,63}")


class Provider(msgspec.Struct, frozen=True):
    """A provider's row: where it is, what it speaks, and whether it is paused.

    With `paused_until_ms` it has been paused by the server because it fails: it is tried again
    then. Without, by an operator, until they resume it.
    """

    id: int
    name: str
    dialect: str
    base_url: str
    injects_usage: bool
    paused_at_ms: int | None
    paused_reason: str | None
    paused_by: str | None
    paused_until_ms: int | None
    resumed_at_ms: int | None
    """When an operator has last said that it is to be used, whatever was wrong with it."""
    created_at_ms: int

    @property
    def is_paused_by_operator(self) -> bool:
        """Say whether nothing may be sent until somebody resumes it."""
        return self.paused_at_ms is not None and self.paused_until_ms is None


class ProviderKey(msgspec.Struct, frozen=True):
    """A provider key's row; its secret stays sealed."""

    id: int
    provider: str
    name: str
    sealed: bytes
    masked: str
    state: str
    state_reason: str | None
    state_since_ms: int
    state_until_ms: int | None
    state_by: str
    created_at_ms: int

    @property
    def is_keyless(self) -> bool:
        """Say whether it stands for "no key needed": nothing is sealed, nothing is sent."""
        return self.sealed == KEYLESS


_PROVIDERS = """
SELECT id, name, dialect, base_url, injects_usage, paused_at_ms, paused_reason, paused_by,
       paused_until_ms, resumed_at_ms, created_at_ms
FROM providers
"""

_KEYS = """
SELECT provider_keys.id, providers.name, provider_keys.name, sealed, masked, state, state_reason,
       state_since_ms, state_until_ms, state_by, provider_keys.created_at_ms
FROM provider_keys JOIN providers ON providers.id = provider_id
"""


def list_providers(tx: Tx) -> list[Provider]:
    """Return every provider that has been configured, by name."""
    return [Provider(*row) for row in tx.execute(_PROVIDERS + "ORDER BY name")]


def list_provider_keys(tx: Tx, provider: str | None = None) -> list[ProviderKey]:
    """Return the keys of one provider, or of all, in the order they were added."""
    rows = tx.execute(
        _KEYS + "WHERE :name IS NULL OR providers.name = :name ORDER BY provider_keys.id",
        {"name": provider},
    )
    return [ProviderKey(*row) for row in rows]


def keys_by_provider(tx: Tx) -> dict[str, list[ProviderKey]]:
    """Return all keys under their providers' names; a provider without keys is not in it."""
    found: dict[str, list[ProviderKey]] = {}
    for key in list_provider_keys(tx):
        found.setdefault(key.provider, []).append(key)
    return found


def list_usable_providers(tx: Tx) -> set[str]:
    """Return the names of providers that have an active key and are not paused by an operator."""
    rows = tx.execute(
        """SELECT name FROM providers
           WHERE (paused_at_ms IS NULL OR paused_until_ms IS NOT NULL)
             AND EXISTS(SELECT 1 FROM provider_keys
                        WHERE provider_id = providers.id AND state = 'active')"""
    )
    return {row[0] for row in rows}


def find_provider(tx: Tx, name: str) -> Provider | None:
    """Return a provider's row, None when it is not set up."""
    row = tx.execute(_PROVIDERS + "WHERE name = ?", (name,)).fetchone()
    return None if row is None else Provider(*row)


def ensure_provider(tx: Tx, name: str, *, now_ms: int) -> Provider:
    """Return a provider's row, making it from its preset at first use.

    Raises:
        NotFoundError: neither configured nor a preset.
    """
    provider = find_provider(tx, name)
    if provider is not None:
        return provider
    preset = PRESETS.get(name)
    if preset is None:
        known = ", ".join(sorted({*PRESETS, *(p.name for p in list_providers(tx))}))
        msg = f"There is no provider {name!r:.80}. Known: {known}. Another: llmproxy providers add"
        raise NotFoundError(msg)
    insert_provider(tx, name, preset, now_ms=now_ms)
    return ensure_provider(tx, name, now_ms=now_ms)


def insert_provider(tx: Tx, name: str, described: Preset, *, now_ms: int) -> None:
    """Make a provider's row; its name must be free."""
    tx.execute(
        """INSERT INTO providers(name, dialect, base_url, injects_usage, created_at_ms)
           VALUES(?, ?, ?, ?, ?)""",
        (name, described.dialect, described.base_url, described.injects_usage, now_ms),
    )


def set_base_url(
    tx: Tx, name: str, base_url: str, *, vault: Vault | None, now_ms: int, actor: str = "cli"
) -> Provider:
    """Point a provider somewhere else and seal its keys again, which are bound to the URL.

    What was wrong where it was says nothing any more: a pause because it failed ends.

    Raises:
        NotFoundError: no such provider.
        VaultError: it has keys, and the vault is missing or cannot open them.
    """
    provider = ensure_provider(tx, name, now_ms=now_ms)
    for key in list_provider_keys(tx, name):
        if key.is_keyless:
            continue
        if vault is None:
            msg = "The master key is needed to seal this provider's keys for another base URL."
            raise VaultError(msg)
        secret = vault.open(key.sealed, row_id=key.id, provider=name, base_url=provider.base_url)
        sealed = vault.seal(secret, row_id=key.id, provider=name, base_url=base_url)
        tx.execute("UPDATE provider_keys SET sealed = ? WHERE id = ?", (sealed, key.id))
    tx.execute("UPDATE providers SET base_url = ? WHERE id = ?", (base_url, provider.id))
    if not provider.is_paused_by_operator:
        resume_provider(tx, name, actor=actor, now_ms=now_ms, reason=f"it is at {base_url} now")
    return ensure_provider(tx, name, now_ms=now_ms)


def pause_provider(
    tx: Tx,
    name: str,
    *,
    reason: str,
    actor: str,
    now_ms: int,
    until_ms: int | None = None,
    upstream_status: int | None = None,
) -> Provider:
    """Stop new requests to a provider; running ones finish.

    Until somebody resumes it, or with `until_ms`, since it fails, until it is tried again: that
    leaves an operator's pause as it is, and keeps since when it fails.
    """
    provider = ensure_provider(tx, name, now_ms=now_ms)
    if until_ms is not None and provider.is_paused_by_operator:
        return provider
    reason = reason[:REASON_CHARS_MAX]
    goes_on = until_ms is not None and provider.paused_at_ms is not None
    since_ms = provider.paused_at_ms if goes_on else now_ms
    tx.execute(
        """UPDATE providers SET paused_at_ms = ?, paused_reason = ?, paused_by = ?,
                  paused_until_ms = ?
           WHERE id = ?""",
        (since_ms, reason, actor, until_ms, provider.id),
    )
    event = ProviderEvent(name, None, "paused", reason, upstream_status, until_ms, actor, now_ms)
    add_event(tx, event)
    return ensure_provider(tx, name, now_ms=now_ms)


def resume_provider(
    tx: Tx, name: str, *, actor: str, now_ms: int, reason: str | None = None
) -> Provider:
    """Let requests through to a provider again, also where only a server's memory keeps them."""
    provider = ensure_provider(tx, name, now_ms=now_ms)
    tx.execute("UPDATE providers SET resumed_at_ms = ? WHERE id = ?", (now_ms, provider.id))
    end_pause(tx, name, actor=actor, now_ms=now_ms, reason=reason)
    return ensure_provider(tx, name, now_ms=now_ms)


def end_pause(tx: Tx, name: str, *, actor: str, now_ms: int, reason: str | None = None) -> None:
    """End the pause of a provider, if there is one."""
    provider = ensure_provider(tx, name, now_ms=now_ms)
    if provider.paused_at_ms is None:
        return
    tx.execute(
        """UPDATE providers SET paused_at_ms = NULL, paused_reason = NULL, paused_by = NULL,
                  paused_until_ms = NULL
           WHERE id = ?""",
        (provider.id,),
    )
    add_event(tx, ProviderEvent(name, None, "active", reason, None, None, actor, now_ms))


def add_provider_key(
    tx: Tx,
    provider_name: str,
    secret: str,
    *,
    name: str | None,
    vault: Vault,
    actor: str,
    now_ms: int,
) -> ProviderKey:
    """Seal a provider key and store it, named `key-N` unless a name is given.

    Raises:
        NotFoundError: no such provider.
        RefusedError: the secret or name cannot be one, or is there already.
    """
    if (
        not (8 <= len(secret) <= 1024 and secret.isascii() and secret.isprintable())
        or " " in secret
    ):
        msg = "That is no provider key: 8 to 1024 visible ASCII characters without spaces."
        raise RefusedError(msg)
    provider = ensure_provider(tx, provider_name, now_ms=now_ms)
    keys = list_provider_keys(tx, provider_name)
    if any(key.is_keyless for key in keys):
        msg = f"{provider_name} is set up to need no key. If it does now, remove its key first"
        command = f"llmproxy provider-keys remove {provider_name} {KEYLESS_NAME}"
        raise RefusedError(msg, command=command)
    _refuse_same_secret(keys, provider, secret, vault)
    present = {key.name for key in keys}
    if name is None:
        name = next(f"key-{n}" for n in range(1, len(present) + 2) if f"key-{n}" not in present)
    if name in present or not _KEY_NAME.fullmatch(name):
        why = "is taken" if name in present else "is no name"
        msg = f"{name!r:.80} {why}; choose another name for this key of {provider_name}."
        raise RefusedError(msg)
    row_id = tx.execute(
        """INSERT INTO provider_keys(provider_id, name, sealed, masked, state_since_ms, state_by,
                                     created_at_ms)
           VALUES(?, ?, x'00', ?, ?, ?, ?)""",
        (provider.id, name, mask(secret), now_ms, actor, now_ms),
    ).lastrowid
    assert row_id is not None
    sealed = vault.seal(secret, row_id=row_id, provider=provider_name, base_url=provider.base_url)
    tx.execute("UPDATE provider_keys SET sealed = ? WHERE id = ?", (sealed, row_id))
    add_event(tx, ProviderEvent(provider_name, name, "active", "added", None, None, actor, now_ms))
    return find_provider_key(tx, provider_name, name)


def _refuse_same_secret(
    keys: list[ProviderKey], provider: Provider, secret: str, vault: Vault
) -> None:
    """Refuse a secret that the provider has a key of, whatever its state.

    Twice it would be tried twice where it fails, and be used on where it was disabled.
    """
    for key in keys:
        if not _has_secret(key, provider, secret, vault):
            continue
        msg = f"This secret is stored already: {key.name!r} of {provider.name} ({key.masked}) is "
        if key.state == "active":
            msg += "in use."
            raise RefusedError(msg)
        msg += f"{key.state.replace('_', ' ')}. Enable that one instead of adding it again"
        command = f"llmproxy provider-keys enable {provider.name} {quote(key.name)}"
        raise RefusedError(msg, command=command)


def _has_secret(key: ProviderKey, provider: Provider, secret: str, vault: Vault) -> bool:
    """Say whether a key has a secret; only one that looks like it is opened.

    One that cannot be opened is no use: another with its secret may take its place.
    """
    if key.masked != mask(secret):
        return False
    try:
        found = vault.open(
            key.sealed, row_id=key.id, provider=provider.name, base_url=provider.base_url
        )
    except VaultError:
        return False
    return found == secret


def find_provider_key(tx: Tx, provider: str, name: str) -> ProviderKey:
    """Return a provider key by its name.

    Raises:
        NotFoundError: the provider has no key of that name.
    """
    for key in list_provider_keys(tx, provider):
        if key.name == name:
            return key
    msg = f"Provider {provider} has no key {name!r:.80}. See: llmproxy provider-keys list"
    raise NotFoundError(msg)


def set_key_state(  # noqa: PLR0913 - the columns of a state
    tx: Tx,
    key_id: int,
    state: str,
    *,
    reason: str | None,
    actor: str,
    now_ms: int,
    until_ms: int | None = None,
    only_from: str | None = None,
    upstream_status: int | None = None,
) -> bool:
    """Give a provider key a state (active, out_of_quota, dead or disabled); say if it was done.

    With `only_from` nothing changes unless the key is in that state: what an operator did
    meanwhile stands.
    """
    done = tx.execute(
        """UPDATE provider_keys SET state = :state, state_reason = :reason,
                  state_since_ms = :now_ms, state_until_ms = :until_ms, state_by = :actor
           WHERE id = :id AND (:only_from IS NULL OR state = :only_from)""",
        {
            "state": state,
            "reason": reason and reason[:REASON_CHARS_MAX],
            "now_ms": now_ms,
            "until_ms": until_ms,
            "actor": actor,
            "id": key_id,
            "only_from": only_from,
        },
    )
    if not done.rowcount:
        return False
    row = tx.execute(_KEYS + "WHERE provider_keys.id = ?", (key_id,)).fetchone()
    key = ProviderKey(*row)
    add_event(
        tx,
        ProviderEvent(
            key.provider, key.name, state, reason, upstream_status, until_ms, actor, now_ms
        ),
    )
    return True


def remove_provider_key(tx: Tx, provider: str, name: str, *, actor: str, now_ms: int) -> None:
    """Forget a provider key and its sealed secret."""
    key = find_provider_key(tx, provider, name)
    tx.execute("DELETE FROM provider_keys WHERE id = ?", (key.id,))
    add_event(tx, ProviderEvent(provider, name, "removed", None, None, None, actor, now_ms))
