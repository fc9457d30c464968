"""Owns secrets: makes and hashes API keys, seals and opens provider keys.

API keys are `llmp_`, 43 random base62 characters and a 6-character CRC-32 (reference security.md
S21, S22); only their SHA-256 is kept. Provider keys are sealed with AES-256-GCM and bound to
their row, provider and base URL (S23), so that a sealed key moved elsewhere cannot be opened.
Must not read files or the environment, and never puts a secret into an error.
"""

import binascii
import hashlib
import os
import secrets

from llmproxy.errors import VaultError

KEY_PREFIX = "llmp_"
MASTER_KEY_BYTES = 32
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_RANDOM_CHARS = 43
_CHECK_CHARS = 6
_KEY_CHARS = len(KEY_PREFIX) + _RANDOM_CHARS + _CHECK_CHARS
_NONCE_BYTES = 12
_SEAL_VERSION = b"\x01"


def new_api_key() -> str:
    """Return a fresh API key with 256 bits of randomness; it is shown once and never stored."""
    random = "".join(secrets.choice(_ALPHABET) for _ in range(_RANDOM_CHARS))
    return KEY_PREFIX + random + _checksum(random)


def _checksum(random: str) -> str:
    value = binascii.crc32(random.encode())
    digits = ""
    for _ in range(_CHECK_CHARS):
        value, digit = divmod(value, len(_ALPHABET))
        digits = _ALPHABET[digit] + digits
    return digits


def is_well_formed(api_key: str) -> bool:
    """Say whether a string could be one of our API keys; typos fail without a look-up."""
    if len(api_key) != _KEY_CHARS or not api_key.startswith(KEY_PREFIX):
        return False
    return _checksum(api_key[len(KEY_PREFIX) : -_CHECK_CHARS]) == api_key[-_CHECK_CHARS:]


def hash_api_key(api_key: str) -> bytes:
    """Return the SHA-256 of an API key: 32 bytes, the only form that is stored."""
    return hashlib.sha256(api_key.encode()).digest()


def mask(secret: str) -> str:
    """Return how a key is shown in lists: its beginning and its last four characters."""
    if len(secret) < 16:
        return "…"
    return f"{secret[:8]}…{secret[-4:]}"


def new_master_key() -> str:
    """Return a fresh master key as 64 hex digits."""
    return secrets.token_hex(MASTER_KEY_BYTES)


class Vault:
    """Seals and opens provider keys under one master key."""

    def __init__(self, master_key_hex: str, new_hex: str | None = None) -> None:
        """Take the master key as 64 hex digits, and the one that is about to take its place.

        What either has sealed is opened. A new one that is none is left out: whoever was killed
        while writing it has sealed nothing with it.

        Raises:
            VaultError: not 64 hex digits.
        """
        # Imported here: the command line seals seldom, and the library costs 15 ms to load.
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415

        key = _key_bytes(master_key_hex)
        if key is None:
            msg = "The master key must be 64 hex digits (32 bytes)."
            raise VaultError(msg)
        self._cipher = AESGCM(key)
        new = None if new_hex is None else _key_bytes(new_hex)
        self._ciphers = [self._cipher] if new is None else [self._cipher, AESGCM(new)]

    def seal(self, secret: str, *, row_id: int, provider: str, base_url: str) -> bytes:
        """Return the secret sealed for this row, provider and base URL."""
        nonce = os.urandom(_NONCE_BYTES)
        bound = _bound_to(row_id, provider, base_url, _SEAL_VERSION)
        return _SEAL_VERSION + nonce + self._cipher.encrypt(nonce, secret.encode(), bound)

    def open(self, sealed: bytes, *, row_id: int, provider: str, base_url: str) -> str:
        """Return the secret behind a sealed value.

        Raises:
            VaultError: another master key, another row, provider or base URL, or damage.
        """
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415

        bound = _bound_to(row_id, provider, base_url, sealed[:1])
        nonce, text = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
        for cipher in self._ciphers:
            try:
                return cipher.decrypt(nonce, text, bound).decode()
            except (InvalidTag, ValueError):
                continue
        msg = (
            f"Provider key {row_id} of {provider} cannot be opened: the master key, the "
            "provider or its base URL is not the one it was sealed with."
        )
        raise VaultError(msg)


def _key_bytes(written: str) -> bytes | None:
    """Return the 32 bytes that 64 hex digits stand for, None for anything else."""
    try:
        key = bytes.fromhex(written.strip())
    except ValueError:
        return None
    return key if len(key) == MASTER_KEY_BYTES else None


def _bound_to(row_id: int, provider: str, base_url: str, version: bytes) -> bytes:
    return version + "\x00".join(("provider_keys", str(row_id), provider, base_url)).encode()
