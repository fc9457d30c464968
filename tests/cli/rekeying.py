"""What tests of a change of the master key begin with, and how they look at what is sealed."""

from pathlib import Path

from llmproxy import key_pool, master_key, sealed_keys
from llmproxy.config import find_paths, load_vault
from llmproxy.storage.database import AdminDatabase
from llmproxy.vault import Vault
from tests.cli.conftest import Quick

SECRETS = {"openai": "sk-openai-0123456789", "anthropic": "sk-ant-0123456789abc"}


def fill(quick: Quick) -> None:
    """Set up two providers with a key each, and one that needs none."""
    for provider, secret in SECRETS.items():
        quick.ok("provider-keys", "add", provider, stdin=secret)
    url = ("--base-url", "http://127.0.0.1:11434/v1")
    quick.ok("providers", "add", "ollama", *url, "--dialect", "openai", "--no-key")


def path_of(quick: Quick) -> Path:
    """Where the master key is."""
    return quick.home / "config" / "master.key"


def opened(quick: Quick, vault: Vault | None = None) -> dict[str, str]:
    """The secrets as whoever opens them now gets them."""
    vault = vault or load_vault(find_paths())
    assert vault is not None
    database = AdminDatabase(quick.database)
    with database.read() as tx:
        urls = {provider.name: provider.base_url for provider in key_pool.list_providers(tx)}
        keys = [key for key in key_pool.list_provider_keys(tx) if not key.is_keyless]
    database.close()
    return {
        key.provider: vault.open(
            key.sealed, row_id=key.id, provider=key.provider, base_url=urls[key.provider]
        )
        for key in keys
    }


def seal_without_end(
    quick: Quick, new: str, *, is_committed: bool, path: Path | None = None
) -> None:
    """Change the master key and be killed: before, or after, the transaction is committed."""
    path = path or path_of(quick)
    old = load_vault(find_paths())
    assert old is not None
    if is_committed:
        database = AdminDatabase(quick.database)
        with database.write() as tx:
            assert sealed_keys.seal_anew(tx, old, Vault(new)) == 2
            master_key.write_new(path, new)
        database.close()
    else:
        master_key.write_new(path, new)
