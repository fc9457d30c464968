"""Owns what is known of a request while it goes through the server, for its log line and metrics.

The request path notes facts as it learns them; `logs.py` and `metrics.py` read them at the end.
Must never hold a secret, a header, or anything of a prompt or an answer.
"""

from operator import attrgetter

import msgspec

from llmproxy.usage import Usage

TOKEN_CLASSES = ("input", "cache_read", "cache_write_5m", "cache_write_1h", "output")
_counts = attrgetter(*TOKEN_CLASSES)


class Trace(msgspec.Struct):
    """One request's facts; what is not known yet is empty.

    `provider` and `endpoint` are names of ours, never text that a client sent; `model` may be the
    client's, and long.
    """

    request_id: str = ""
    user: str = ""
    api_key: str = ""
    provider: str = ""
    endpoint: str = ""
    dialect: str = ""
    """In whose shape errors are told."""
    model: str = ""
    is_stream: bool = False
    status: int = 0
    """The HTTP status that the client got; 0 when it left before."""
    code: str = ""
    """Our error code, when the answer is a refusal of ours."""
    upstream_status: int | None = None
    attempts: int = 0
    """How often it was sent to the provider."""
    state: str = ""
    """How it ended, as its row says; empty for a request that was never admitted."""
    basis: str = "none"
    usage: Usage | None = None
    cost_nanousd: int = 0
    ttfb_s: float | None = None
    """From the request's arrival to the head of the answer, in seconds."""
    duration_s: float = 0.0
    """From its arrival to its end, in seconds, a drain after the client left included."""
    bytes_in: int = 0
    bytes_out: int = 0
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
        """Return the tokens of each billed class over all legs.

        The classes are disjoint: reasoning tokens stand in `output`. To be asked at the end.
        """
        legs = self.usage.legs if self.usage is not None else ()
        if len(legs) == 1:
            return dict(zip(TOKEN_CLASSES, _counts(legs[0]), strict=True))
        found = dict.fromkeys(TOKEN_CLASSES, 0)
        for leg in legs:
            for name, count in zip(TOKEN_CLASSES, _counts(leg), strict=True):
                found[name] += count
        return found
