"""One bad request, and how the generators spell the usual parts of it."""

from collections.abc import Iterable
from typing import NamedTuple

KEY = b"key-of-the-bad-inputs"
"""Let in by the server of the test alone: what is refused is not refused for want of a key."""
CHAT = b"/v1/openai/chat/completions"
MESSAGES = b"/v1/anthropic/v1/messages"
GOOD_BODY = b'{"model":"gpt-4o","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}'
"""Would be served, and cost money, if all around it were right."""
SMUGGLED = b"GET /v1/smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
"""Gets an answer of its own where one side ends the request before it sooner than the other."""


class Bad(NamedTuple):
    """A request that must be refused.

    Attributes:
        name: of its file; its first word is the group.
        status: of the answer, by RFC 9110, RFC 9112 and the design; "closed" where the connection
            may end without one.
        raw: every byte that is sent.
    """

    name: str
    status: int | str
    raw: bytes

    @property
    def file_name(self) -> str:
        return f"{self.name}.{self.status}.http"


def request(
    *,
    line: bytes = b"POST " + CHAT + b" HTTP/1.1",
    headers: Iterable[bytes] = (),
    body: bytes = GOOD_BODY,
    length: bytes | None = None,
    host: bytes | None = b"Host: x",
    key: bytes | None = b"Authorization: Bearer " + KEY,
    end: bytes = b"\r\n",
) -> bytes:
    """Return a request; without any argument it would be served.

    Args:
        line: the request line.
        headers: more of them, each a whole line.
        body: sent as it is.
        length: what Content-Length says, None for the truth, b"" for no such header.
        host: the line of that header, or None.
        key: the line of the credential, or None.
        end: of each line.
    """
    lines = [line, *(given for given in (host, key) if given is not None)]
    if length is None:
        length = b"%d" % len(body)
    if length:
        lines.append(b"Content-Length: " + length)
    lines += headers
    return end.join((*lines, b"", b"")) + body
