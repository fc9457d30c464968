"""Owns receipts: everything that one request's cost was made of."""

import msgspec

from llmproxy.clock import request_id_text
from llmproxy.errors import DatabaseError, NotFoundError
from llmproxy.money import cost_nanousd
from llmproxy.pricing import Line
from llmproxy.reports.requests import Request, find_request
from llmproxy.storage.database import Tx


class Receipt(msgspec.Struct, frozen=True):
    """Everything that one request's cost was made of; multipliers are millionths.

    The multipliers are None for a request that was refused, which held nothing.
    """

    request: Request
    lines: tuple[Line, ...]
    raw_usage: str | None
    user_multiplier_micro: int | None
    model_multiplier_micro: int | None
    price_version: int | None
    ended_at_ms: int | None

    @property
    def rated_tokens(self) -> int:
        """The sum of all lines in rated tokens, before multipliers and rounding."""
        return sum(line.rated_tokens for line in self.lines)

    @property
    def recomputed_nanousd(self) -> int | None:
        """What the lines multiply to; None when there are no lines to multiply."""
        if not self.lines or self.user_multiplier_micro is None:
            return None
        return cost_nanousd(
            self.rated_tokens, self.user_multiplier_micro, self.model_multiplier_micro or 0
        )

    @property
    def agrees(self) -> bool:
        """Whether the stored cost is what the lines multiply to (without lines: nothing to say)."""
        return self.recomputed_nanousd in {None, self.request.cost_nanousd}


def find_receipt(tx: Tx, request_id: bytes) -> Receipt:
    """Return the receipt of a request, whatever its state.

    A request whose reporting row has been pruned still has its hold: what was held and charged.

    Raises:
        NotFoundError: there is no such request.
        DatabaseError: its receipt is damaged.
    """
    request = find_request(tx, request_id)
    if request is None:
        msg = f"There is no request {request_id_text(request_id)}. See: llmproxy usage requests"
        raise NotFoundError(msg)
    details = tx.execute(
        "SELECT receipt, raw_usage FROM requests WHERE id = ?", (request_id,)
    ).fetchone() or (None, None)
    pinned = tx.execute(
        """SELECT user_multiplier_micro, model_multiplier_micro, price_version_id, ended_at_ms
           FROM holds WHERE id = ?""",
        (request_id,),
    ).fetchone() or (None, None, None, None)
    try:
        lines = msgspec.json.decode(details[0] or "[]", type=tuple[Line, ...])
    except msgspec.DecodeError as error:
        msg = f"The receipt of {request_id_text(request_id)} cannot be read: {error}."
        raise DatabaseError(msg) from error
    return Receipt(request, lines, details[1], *pinned)
