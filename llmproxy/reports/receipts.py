"""Owns receipts: everything that one request's cost was made of."""

import msgspec

from llmproxy.clock import arrival_ms, request_id_text, rfc3339
from llmproxy.errors import DatabaseError, NotFoundError
from llmproxy.money import cost_nanousd
from llmproxy.pricing import Line
from llmproxy.reports.days import pruned_before_ms
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
    is_pruned: bool
    """Its row was deleted by `usage prune`: only what its hold says is known."""

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
        raise NotFoundError(_unknown(tx, request_id))
    row = tx.execute(
        "SELECT receipt, raw_usage FROM requests WHERE id = ?", (request_id,)
    ).fetchone()
    details = row or (None, None)
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
    is_pruned = row is None and request.state != "open"
    user, model, version, ended_at_ms = pinned
    return Receipt(request, lines, details[1], user, model, version, ended_at_ms, is_pruned)


def _unknown(tx: Tx, request_id: bytes) -> str:
    """Say that there is no such request; one that held nothing may have been pruned."""
    msg = f"There is no request {request_id_text(request_id)}."
    pruned_ms = pruned_before_ms(tx) or 0
    if arrival_ms(request_id) < pruned_ms:
        day = (rfc3339(pruned_ms) or "")[:10]
        return f"{msg} Refused and free requests from before {day} have been pruned."
    return f"{msg} See: llmproxy usage requests"
