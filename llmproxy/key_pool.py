"""Owns providers and their keys: presets, states, and which key a request uses.

What may take a key out of service, and what must not, is decided by `dialects/failures.py`
reading the provider's answer (reference wire.md E); this module keeps the states. Writers are
`f(tx, …)`. Must not talk to providers or know money.
"""

import ipaddress
import logging
import re
from collections.abc import Callable
from urllib.parse import SplitResult, urlsplit

import msgspec

from llmproxy.errors import NotFoundError, RefusedError, VaultError
from llmproxy.storage.database import Tx
from llmproxy.vault import Vault, mask

OUT_OF_QUOTA_PARK_MS = 3_600_000
REASON_CHARS_MAX = 300

_log = logging.getLogger("llmproxy.key_pool")


class Preset(msgspec.Struct, frozen=True):
    """What is known of a provider before anybody configures it.

    `injects_usage`: it reports usage in a stream only when asked (reference wire.md A.2).
    """

    dialect: str
    base_url: str
    injects_usage: bool = True


PRESETS = {
    "openai": Preset("openai", "https://api.openai.com/v1"),
    "anthropic": Preset("anthropic", "https://api.anthropic.com", injects_usage=False),
    "gemini": Preset("openai", "https://generativelanguage.googleapis.com/v1beta/openai"),
    "xai": Preset("openai", "https://api.x.ai/v1"),
    "groq": Preset("openai", "https://api.groq.com/openai/v1"),
    "mistral": Preset("openai", "https://api.mistral.ai/v1", injects_usage=False),
    "deepseek": Preset("openai", "https://api.deepseek.com/v1"),
}

_KEY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@ -]{0,63}")


class Provider(msgspec.Struct, frozen=True):
    """A provider's row: where it is, what it speaks, and whether it is paused."""

    id: int
    name: str
    dialect: str
    base_url: str
    injects_usage: bool
    paused_at_ms: int | None
    paused_reason: str | None
    paused_by: str | None
    created_at_ms: int


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


_PROVIDERS = """
SELECT id, name, dialect, base_url, injects_usage, paused_at_ms, paused_reason, paused_by,
       created_at_ms
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


def ensure_provider(tx: Tx, name: str, *, now_ms: int) -> Provider:
    """Return a provider's row, making it from its preset at first use.

    Raises:
        NotFoundError: neither configured nor a preset.
    """
    row = tx.execute(_PROVIDERS + "WHERE name = ?", (name,)).fetchone()
    if row is not None:
        return Provider(*row)
    preset = PRESETS.get(name)
    if preset is None:
        known = ", ".join(sorted({*PRESETS, *(p.name for p in list_providers(tx))}))
        msg = f"There is no provider {name!r:.80}. Known: {known}."
        raise NotFoundError(msg)
    tx.execute(
        """INSERT INTO providers(name, dialect, base_url, injects_usage, created_at_ms)
           VALUES(?, ?, ?, ?, ?)""",
        (name, preset.dialect, preset.base_url, preset.injects_usage, now_ms),
    )
    return ensure_provider(tx, name, now_ms=now_ms)


def check_base_url(url: str, *, allow_http: bool) -> str:
    """Return a base URL without its trailing slash.

    Raises:
        RefusedError: not an http(s) URL with a host and nothing after the path, or plain http to
            a host that is not this machine without `allow_http`.
    """
    parts = _split_url(url.strip())
    if parts is None:
        msg = f"{url!r:.200} cannot be a base URL; write one such as https://api.openai.com/v1"
        raise RefusedError(msg)
    assert parts.hostname is not None
    if parts.scheme == "http" and not (allow_http or _is_loopback(parts.hostname)):
        msg = f"{url} is not encrypted and not on this machine. Use https, or add --allow-http."
        raise RefusedError(msg)
    return url.strip().rstrip("/")


def _split_url(url: str) -> SplitResult | None:
    """Return the parts of an http(s) URL with a host and nothing after its path, else None."""
    try:
        parts = urlsplit(url)
        has_good_port = parts.port != 0
    except ValueError:  # a port that is no number, brackets that do not close
        return None
    has_extras = parts.query or parts.fragment or parts.username or parts.password
    is_plain = url.isascii() and url.isprintable() and " " not in url
    if parts.scheme not in {"http", "https"} or not parts.hostname or has_extras:
        return None
    return parts if is_plain and has_good_port else None


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def set_base_url(tx: Tx, name: str, base_url: str, *, vault: Vault | None, now_ms: int) -> Provider:
    """Point a provider somewhere else and seal its keys again, which are bound to the URL.

    Raises:
        NotFoundError: no such provider.
        VaultError: it has keys, and the vault is missing or cannot open them.
    """
    provider = ensure_provider(tx, name, now_ms=now_ms)
    for key in list_provider_keys(tx, name):
        if vault is None:
            msg = "The master key is needed to seal this provider's keys for another base URL."
            raise VaultError(msg)
        secret = vault.open(key.sealed, row_id=key.id, provider=name, base_url=provider.base_url)
        sealed = vault.seal(secret, row_id=key.id, provider=name, base_url=base_url)
        tx.execute("UPDATE provider_keys SET sealed = ? WHERE id = ?", (sealed, key.id))
    tx.execute("UPDATE providers SET base_url = ? WHERE id = ?", (base_url, provider.id))
    return ensure_provider(tx, name, now_ms=now_ms)


def pause_provider(tx: Tx, name: str, *, reason: str, actor: str, now_ms: int) -> Provider:
    """Stop new requests to a provider until somebody resumes it; running ones finish."""
    provider = ensure_provider(tx, name, now_ms=now_ms)
    tx.execute(
        "UPDATE providers SET paused_at_ms = ?, paused_reason = ?, paused_by = ? WHERE id = ?",
        (now_ms, reason[:REASON_CHARS_MAX], actor, provider.id),
    )
    return ensure_provider(tx, name, now_ms=now_ms)


def resume_provider(tx: Tx, name: str, *, now_ms: int) -> Provider:
    """Let requests through to a provider again."""
    provider = ensure_provider(tx, name, now_ms=now_ms)
    tx.execute(
        """UPDATE providers SET paused_at_ms = NULL, paused_reason = NULL, paused_by = NULL
           WHERE id = ?""",
        (provider.id,),
    )
    return ensure_provider(tx, name, now_ms=now_ms)


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
        RefusedError: the secret or name cannot be one, or the name is taken.
    """
    if (
        not (8 <= len(secret) <= 1024 and secret.isascii() and secret.isprintable())
        or " " in secret
    ):
        msg = "That is no provider key: 8 to 1024 visible ASCII characters without spaces."
        raise RefusedError(msg)
    provider = ensure_provider(tx, provider_name, now_ms=now_ms)
    present = {key.name for key in list_provider_keys(tx, provider_name)}
    if name is None:
        name = next(f"key-{n}" for n in range(1, len(present) + 2) if f"key-{n}" not in present)
    if name in present or not _KEY_NAME.fullmatch(name):
        why = "is taken" if name in present else "is no name"
        msg = f"{name!r:.80} {why}; choose another --name for this key of {provider_name}."
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
    return find_provider_key(tx, provider_name, name)


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
) -> None:
    """Give a provider key a state: active, out_of_quota, dead or disabled.

    With `only_from` nothing changes unless the key is in that state: what an operator did
    meanwhile stands.
    """
    tx.execute(
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


def remove_provider_key(tx: Tx, provider: str, name: str) -> None:
    """Forget a provider key and its sealed secret."""
    key = find_provider_key(tx, provider, name)
    tx.execute("DELETE FROM provider_keys WHERE id = ?", (key.id,))


class LiveKey:
    """A provider key as the server uses it: its secret in memory, and what keeps it from use."""

    __slots__ = ("cooling_until_ms", "id", "name", "secret", "state", "until_ms")

    def __init__(self, row: ProviderKey, secret: str) -> None:
        """Take the stored row and the opened secret."""
        self.id = row.id
        self.name = row.name
        self.secret = secret
        self.state = row.state
        self.until_ms = row.state_until_ms
        self.cooling_until_ms: dict[str, int] = {}

    def __repr__(self) -> str:  # type: ignore[explicit-override]
        """Name the key without its secret, for logs."""
        return f"LiveKey({self.id}, {self.name!r}, {self.state})"

    def is_in_service(self, now_ms: int) -> bool:
        """Say whether it may be tried: active, or parked for so long that it is tried again."""
        if self.state == "active":
            return True
        return (
            self.state == "out_of_quota" and self.until_ms is not None and now_ms >= self.until_ms
        )


class Pool:
    """The providers and opened keys in the server's memory."""

    def __init__(
        self, vault: Vault | None, find_vault: Callable[[], Vault | None] = lambda: None
    ) -> None:
        """Take the vault, or None when there is no master key yet and no key can be used.

        `find_vault` looks for one when the first key comes: adding it makes the master key.
        """
        self._vault = vault
        self._find_vault = find_vault
        self.providers: dict[str, Provider] = {}
        self._keys: dict[str, list[LiveKey]] = {}

    def publish(self, providers: list[Provider], rows: list[ProviderKey]) -> None:
        """Replace what is known by what the database says; cooldowns of known keys stay."""
        known = {key.id: key for keys in self._keys.values() for key in keys}
        self.providers = {provider.name: provider for provider in providers}
        self._keys = {name: [] for name in self.providers}
        for row in rows:
            secret = self._open(row)
            if secret is None:
                continue
            key = LiveKey(row, secret)
            if row.id in known:
                key.cooling_until_ms = known[row.id].cooling_until_ms
            self._keys[row.provider].append(key)

    def _open(self, row: ProviderKey) -> str | None:
        provider = self.providers[row.provider]
        try:
            return self._require_vault().open(
                row.sealed, row_id=row.id, provider=row.provider, base_url=provider.base_url
            )
        except VaultError as error:
            _log.error("provider key %s of %s is not used: %s", row.name, row.provider, error)
            return None

    def _require_vault(self) -> Vault:
        if self._vault is None:
            self._vault = self._find_vault()
        if self._vault is None:
            msg = "there is no master key"
            raise VaultError(msg)
        return self._vault

    def usable(self, provider: str, model: str, user_id: int, now_ms: int) -> list[LiveKey]:
        """Return the keys that may be tried for a request, best first.

        The same user meets the same key first (rendezvous order), so that prompt caches at the
        provider keep working.
        """
        keys = [
            key
            for key in self._keys.get(provider, ())
            if key.is_in_service(now_ms) and key.cooling_until_ms.get(model, 0) <= now_ms
        ]
        if len(keys) > 1:
            keys.sort(key=lambda key: hash((user_id, key.id)))
        return keys

    def cooldown_left_ms(self, provider: str, model: str, now_ms: int) -> int | None:
        """Return how long until the first cooling key is back, or None when none is cooling."""
        waits = [
            key.cooling_until_ms[model] - now_ms
            for key in self._keys.get(provider, ())
            if key.is_in_service(now_ms) and key.cooling_until_ms.get(model, 0) > now_ms
        ]
        return min(waits, default=None)

    def has_usable_key(self, now_ms: int) -> bool:
        """Say whether any provider has a key in service: one thing that readiness asks."""
        return any(key.is_in_service(now_ms) for keys in self._keys.values() for key in keys)
