"""Owns what is known of a request while it goes through the server, for its log line and metrics.

The request path notes facts as it learns them; `logs.py` and `metrics.py` read them at the end.
Must never hold a secret, a header, or anything of a prompt or an answer.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmproxy.usage import Usage


class Trace:
    """One request's facts; what is not known yet is empty.

    `provider` and `endpoint` are names of ours, never text that a client sent; `model` may be the
    client's, and long.
    """

    __slots__ = (
        "_tokens",
        "api_key",
        "attempts",
        "basis",
        "bytes_in",
        "bytes_out",
        "code",
        "cost_nanousd",
        "duration_s",
        "endpoint",
        "is_stream",
        "model",
        "provider",
        "request_id",
        "state",
        "status",
        "ttfb_s",
        "upstream_status",
        "usage",
        "user",
    )

    def __init__(self) -> None:
        """Begin with nothing known."""
        self.request_id = ""
        self.user = ""
        self.api_key = ""
        self.provider = ""
        self.endpoint = ""
        self.model = ""
        self.is_stream = False
        self.status = 0
        """The HTTP status that the client got; 0 when it left before."""
        self.code = ""
        """Our error code, when the answer is a refusal of ours."""
        self.upstream_status: int | None = None
        self.attempts = 0
        """How often it was sent to the provider."""
        self.state = ""
        """How it ended, as its row says; empty for a request that was never admitted."""
        self.basis = "none"
        self.usage: Usage | None = None
        self._tokens: dict[str, int] | None = None
        self.cost_nanousd = 0
        self.ttfb_s: float | None = None
        """From the request's arrival to the head of the answer, in seconds."""
        self.duration_s = 0.0
        """From its arrival to its end, in seconds, a drain after the client left included."""
        self.bytes_in = 0
        self.bytes_out = 0
        """Bytes of the bodies, both ways."""

    @property
    def was_admitted(self) -> bool:
        """Say whether it was let through to its provider."""
        return bool(self.state)

    @property
    def final_state(self) -> str:
        """How it ended; when it was never admitted `refused`, or `settled` for our own answers."""
        return self.state or ("settled" if 200 <= self.status < 400 else "refused")

    def tokens(self) -> dict[str, int]:
        """Return the tokens of each billed class over all legs; classes without any are left out.

        The classes are disjoint: reasoning tokens stand in `output`. To be asked at the end.
        """
        if self._tokens is not None:
            return self._tokens
        found: dict[str, int] = {}
        self._tokens = found
        if self.usage is None:
            return found
        for leg in self.usage.legs:
            for name in TOKEN_CLASSES:
                count = getattr(leg, name)
                if count:
                    found[name] = found.get(name, 0) + count
        return found


INPUT_CLASSES = ("input", "cache_read", "cache_write_5m", "cache_write_1h")
TOKEN_CLASSES = (*INPUT_CLASSES, "output")
