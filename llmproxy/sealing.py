"""Owns the vault of whoever seals provider keys, and the change of the master key.

It reads and writes the file of the master key inside a writing transaction: not for the serving
loop, which must not wait for files.
"""

from typing import TYPE_CHECKING, NamedTuple

from llmproxy import config, key_pool, master_key, sealed_keys
from llmproxy.errors import LlmproxyError, RefusedError, VaultError
from llmproxy.vault import Vault, new_master_key

if TYPE_CHECKING:
    from pathlib import Path

    from llmproxy.config import MasterKey, Paths
    from llmproxy.storage.database import AdminDatabase, Tx


def sealing_key(tx: "Tx", paths: "Paths") -> "MasterKey | None":
    """Return the key that new secrets are to be sealed with, None when there is none yet.

    A change of the master key that was cut short is brought to its end. In a writing transaction:
    only so is the key still the right one when what it sealed is committed. It is read once: a
    pipe does not say it again.

    Raises:
        VaultError: the master key cannot be read, is none, or is not the one in use: sealed under
            it, a further secret would be lost to whoever hands over the right one.
    """
    found = config.find_master_key(paths)
    if found is None:
        return None
    present = found._replace(new_text=None)
    current = present.vault()
    following = None if found.new_text is None else _vault_or_none(found.new_text)
    if sealed_keys.has_sealed(tx):
        if sealed_keys.can_open(tx, current):
            return present
        if following is None or not sealed_keys.can_open(tx, following):
            raise VaultError(_opens_nothing(found.origin), command="llmproxy provider-keys remove")
    # With nothing sealed a new key is due as well: whoever wrote it wants the old one gone.
    if following is None or found.path is None or found.new_text is None:
        return present
    master_key.put_in_place(found.path)
    return present._replace(text=found.new_text)


def sealing_key_or_new(tx: "Tx", paths: "Paths") -> "MasterKey":
    """Return what to seal under; a new master key is made only while nothing is sealed yet.

    Raises:
        VaultError: as `sealing_key`; or there are sealed keys, but their master key is not where
            it is looked for, or none can be made.
    """
    found = sealing_key(tx, paths)
    if found is not None:
        return found
    count = sum(not key.is_keyless for key in key_pool.list_provider_keys(tx))
    if count:
        msg = (
            f"The master key that {count} stored provider keys are sealed under is missing. "
            f"{master_key.how_to_restore(paths.master_key)}; or remove those keys"
        )
        raise VaultError(msg, command="llmproxy provider-keys remove")
    path = paths.master_key
    return config.MasterKey(str(path), master_key.make(path), path)


def _vault_or_none(text: str) -> Vault | None:
    """Return the vault under a key that may have been cut short while it was written."""
    try:
        return Vault(text)
    except VaultError:
        return None


class Rekeyed(NamedTuple):
    """A change of the master key: how many keys were sealed anew, and where the new one is."""

    keys: int
    path: "Path | None"
    """None where the operator must hand the new key over."""
    origin: str


def seal_anew(database: "AdminDatabase", paths: "Paths", given: str | None = None) -> Rekeyed:
    """Make a new master key, or take a given one, and seal all provider keys with it.

    Raises:
        VaultError: there is no master key, it does not open all keys, or one cannot be written.
        RefusedError: the new one is the present one, or must be given and is not.
    """
    with database.write(changes_files=True) as tx:
        found = sealing_key(tx, paths)
        if found is None:
            msg = "There is no master key yet. The first one is made by: llmproxy provider-keys add"
            raise VaultError(msg)
        if given is None and found.path is None:
            raise RefusedError(_must_be_given(found.origin))
        text = new_master_key() if given is None else given
        new = Vault(text)
        if text.strip().lower() == found.text.strip().lower():
            msg = "That is the present master key. Give another one: openssl rand -hex 32"
            raise RefusedError(msg)
        keys = sealed_keys.seal_anew(tx, found.vault(), new)
        path = found.path
        if path is not None and not master_key.can_be_replaced(path, found.text):
            if given is None:
                raise RefusedError(_must_be_given(found.origin))
            path = None
        if path is not None:
            master_key.write_new(path, text)
    if path is not None:
        _finish_or_say(database, paths, path)
    return Rekeyed(keys, path, found.origin)


def _finish_or_say(database: "AdminDatabase", paths: "Paths", path: "Path") -> None:
    """Do the last step; whatever goes wrong, say that all is sealed under the new key by now."""
    try:
        finish(database, paths)
    except (LlmproxyError, OSError) as error:
        msg = (
            "All provider keys are sealed under the new master key, but the change did not come "
            f"to its end. The new key is in {master_key.path_of_new(path)}: keep that file, or "
            f"where it is gone {path}, whose place it takes. What went wrong: {error}"
        )
        raise VaultError(msg) from error


def finish(database: "AdminDatabase", paths: "Paths") -> None:
    """Let the new master key take the old one's place, now that all is sealed with it."""
    with database.write() as tx:
        sealing_key(tx, paths)


def _opens_nothing(origin: str) -> str:
    return (
        f"The master key from {origin} opens none of the stored provider keys, which are sealed "
        "under another one. Nothing is sealed under it: no single master key would open all of "
        "them. Hand over the right one, or if it is lost, remove the keys that it has sealed"
    )


def _must_be_given(origin: str) -> str:
    return (
        f"The master key comes from {origin}, which llmproxy cannot change. Make a new one, keep "
        "it, and give it: openssl rand -hex 32 > new.key; "
        "llmproxy provider-keys rekey --new-key-file new.key"
    )
