"""Owns asking a provider, with each of its keys, whether it answers: as `providers check` does.

It asks in the serving loop, which goes on meanwhile; files are read in a thread. It changes
nothing.
"""

import asyncio
from typing import NamedTuple

from llmproxy import config
from llmproxy.config import Config
from llmproxy.dashboard.admin.office import Office
from llmproxy.errors import VaultError
from llmproxy.key_pool import Provider, ProviderKey
from llmproxy.probe import Probe

AT_ONCE_MAX = 10


class Checked(NamedTuple):
    """A key, and what the provider said to it."""

    key: ProviderKey
    probe: Probe


async def check(office: Office, provider: Provider, keys: list[ProviderKey]) -> list[Checked]:
    """Ask with every key that is not disabled, and return what came of it."""
    wanted = [key for key in keys if key.state != "disabled"]
    opened = await asyncio.to_thread(_open, office.config, provider, wanted)
    free = asyncio.Semaphore(AT_ONCE_MAX)

    async def ask(secret: str | Probe) -> Probe:
        if isinstance(secret, Probe):
            return secret
        async with free:
            return await office.ask(provider, secret)

    probes = await asyncio.gather(*(ask(secret) for secret in opened))
    return [Checked(*each) for each in zip(wanted, probes, strict=True)]


def _open(config_: Config, provider: Provider, keys: list[ProviderKey]) -> list[str | Probe]:
    """Return the secrets of keys, or why one cannot be opened; none where none is needed."""
    if all(key.is_keyless for key in keys):
        return ["" for _ in keys]
    try:
        vault = config.load_vault_again(config_.paths)
    except VaultError as error:
        return [Probe("sealed", None, str(error)) for _ in keys]
    if vault is None:
        return [Probe("sealed", None, "its master key is missing; see: llmproxy doctor")] * len(
            keys
        )
    found: list[str | Probe] = []
    for key in keys:
        try:
            found.append(
                vault.open(
                    key.sealed, row_id=key.id, provider=provider.name, base_url=provider.base_url
                )
            )
        except VaultError as error:
            found.append(Probe("sealed", None, str(error)))
    return found
