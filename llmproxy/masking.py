"""Owns what of a provider's error a client must not see: the key, and whose account it is.

A provider's answers pass unchanged; its errors do too, but for the operator's key and the ids of
the operator's organization and project, which some providers name in them.
"""

import re

from llmproxy.headers import Headers, secret_forms, without_secret

MASK = b"***"
_ID = re.compile(rb"(?:org[-_]|proj_)(?=[A-Za-z]{0,63}[0-9])[A-Za-z0-9]{16,64}")
"""As OpenAI (`org-`, `proj_`) and Groq (`org_`) write them; a user's `org_directory_lookup` is
none."""
_ID_BYTES_MAX = len("proj_") + 64
_BEGUN = re.compile(rb"(?:(?:org[-_]|proj_)[A-Za-z0-9]{0,64}|or?g?|pr?o?j?)\Z")
"""What one piece of a body ends with, and the next one may make an id, or more of one, of."""


def without_ids(headers: Headers) -> Headers:
    """Return an error's headers with the operator's ids masked."""
    return [(name, _ID.sub(MASK, value)) for name, value in headers]


class MaskedBody:
    """An error's body that comes in pieces, whose ends may cut through what must not be seen."""

    def __init__(self, secret: str) -> None:
        """Take the provider key that the request was sent with, empty where none is needed."""
        self._secret = secret
        self._held = b""

    def feed(self, piece: bytes) -> bytes:
        """Return what may be passed on now that a piece has come."""
        data = without_secret(self._held + piece, self._secret)
        end = self._end_of_known(data)
        passed: list[bytes] = []
        done = 0
        for found in _ID.finditer(data):
            if found.end() > end:
                end = min(end, found.start())
                break
            passed += (data[done : found.start()], MASK)
            done = found.end()
        self._held = data[end:]
        return b"".join((*passed, data[done:end]))

    def finish(self) -> bytes:
        """Return what is left at the end of the body."""
        held, self._held = self._held, b""
        return _ID.sub(MASK, held)

    def _end_of_known(self, data: bytes) -> int:
        """Return where that begins which the next piece may make a secret or an id of."""
        # Only there can it begin: to look through all of a large page would stop the loop for long.
        begun = _BEGUN.search(data, max(0, len(data) - _ID_BYTES_MAX))
        end = len(data) - self._secret_begun(data)
        return end if begun is None else min(end, begun.start())

    def _secret_begun(self, data: bytes) -> int:
        """Return how many bytes at the end could be the beginning of the secret."""
        return max((_begun(data, form) for form in secret_forms(self._secret)), default=0)


def _begun(data: bytes, secret: bytes) -> int:
    sizes = range(min(len(secret) - 1, len(data)), 0, -1)
    return next((size for size in sizes if data.endswith(secret[:size])), 0)
