"""API keys and the sealing of provider keys."""

import pytest

from llmproxy import vault
from llmproxy.errors import VaultError
from llmproxy.vault import Vault

SECRET = "sk-proj-0123456789"
URL = "https://api.openai.com/v1"


def seal(box: Vault) -> bytes:
    return box.seal(SECRET, row_id=3, provider="openai", base_url=URL)


def test_api_keys_are_long_distinct_and_carry_a_checksum() -> None:
    keys = {vault.new_api_key() for _ in range(100)}
    assert len(keys) == 100
    for key in keys:
        assert vault.is_well_formed(key)
        assert len(key) == 54
        assert key.startswith("llmp_")


def test_a_mistyped_key_is_known_as_such_without_a_look_up() -> None:
    key = vault.new_api_key()
    for position in (5, 20, 47, 53):
        other = "a" if key[position] != "a" else "b"
        assert not vault.is_well_formed(key[:position] + other + key[position + 1 :])
    for wrong in ("", key[:-1], key + "0", "sk-" + key[3:]):
        assert not vault.is_well_formed(wrong)


def test_a_mask_shows_too_little_to_guess_the_rest() -> None:
    assert vault.mask("sk-proj-abcdefghijkl") == "sk-proj-…ijkl"
    assert vault.mask("short-secret") == "…"


def test_a_sealed_key_is_opened_in_its_place_only() -> None:
    box = Vault(vault.new_master_key())
    sealed = seal(box)
    assert SECRET.encode() not in sealed
    assert sealed != seal(box)
    assert box.open(sealed, row_id=3, provider="openai", base_url=URL) == SECRET
    elsewhere = [
        (4, "openai", "https://api.openai.com/v1"),
        (3, "xai", "https://api.openai.com/v1"),
        (3, "openai", "https://evil.example.com/v1"),
    ]
    for row_id, provider, base_url in elsewhere:
        with pytest.raises(VaultError) as raised:
            box.open(sealed, row_id=row_id, provider=provider, base_url=base_url)
        assert SECRET not in str(raised.value)


@pytest.mark.parametrize("damage", [b"", b"\x01", b"\x02" * 60, b"\x01" * 60])
def test_what_is_no_sealed_key_is_not_opened(damage: bytes) -> None:
    box = Vault(vault.new_master_key())
    with pytest.raises(VaultError):
        box.open(damage, row_id=3, provider="openai", base_url=URL)


def test_another_master_key_opens_nothing() -> None:
    sealed = seal(Vault(vault.new_master_key()))
    with pytest.raises(VaultError, match="master key"):
        Vault(vault.new_master_key()).open(sealed, row_id=3, provider="openai", base_url=URL)


@pytest.mark.parametrize("text", ["", "abc", "zz" * 32, "00" * 31, "00" * 33])
def test_what_is_no_master_key_is_refused_without_being_echoed(text: str) -> None:
    with pytest.raises(VaultError, match="64 hex digits") as raised:
        Vault(text)
    assert not text or text not in str(raised.value)


def test_a_master_key_may_end_in_a_newline() -> None:
    text = vault.new_master_key()
    sealed = seal(Vault(text + "\n"))
    assert Vault(text).open(sealed, row_id=3, provider="openai", base_url=URL)
