"""Owns the provider keys' seals as a whole: is anything sealed, who can open it, and a new seal.

Functions are `f(tx, …)`. Must not know where master keys are kept, nor keep a secret.
"""

from llmproxy.errors import VaultError
from llmproxy.key_pool import list_provider_keys, list_providers
from llmproxy.storage.database import Tx
from llmproxy.vault import Vault


def has_sealed(tx: Tx) -> bool:
    """Say whether anything is sealed; providers that need no key have nothing that is."""
    return any(not key.is_keyless for key in list_provider_keys(tx))


def can_open(tx: Tx, vault: Vault) -> bool:
    """Say whether a vault opens what is sealed; all of it is sealed under one master key.

    One that it opens is enough: another may be damaged. Where nothing is sealed, none is opened.
    """
    base_urls = {provider.name: provider.base_url for provider in list_providers(tx)}
    for key in list_provider_keys(tx):
        if key.is_keyless:
            continue
        try:
            vault.open(
                key.sealed,
                row_id=key.id,
                provider=key.provider,
                base_url=base_urls[key.provider],
            )
        except VaultError:
            continue
        return True
    return False


def seal_anew(tx: Tx, old: Vault, new: Vault) -> int:
    """Seal all provider keys under another master key; return how many they are.

    Raises:
        VaultError: one of them cannot be opened.
    """
    base_urls = {provider.name: provider.base_url for provider in list_providers(tx)}
    count = 0
    for key in list_provider_keys(tx):
        if key.is_keyless:
            continue
        base_url = base_urls[key.provider]
        secret = old.open(key.sealed, row_id=key.id, provider=key.provider, base_url=base_url)
        sealed = new.seal(secret, row_id=key.id, provider=key.provider, base_url=base_url)
        tx.execute("UPDATE provider_keys SET sealed = ? WHERE id = ?", (sealed, key.id))
        count += 1
    return count
