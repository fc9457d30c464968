"""Faults of TLS: where it cannot be had, nothing of the request has left."""

from collections.abc import Iterator

from tests.faults.cell import SILENT_S, Case, Limits, Place, Stage
from tests.faults.connections import nothing
from tests.faults.dialects import Dialect
from tests.faults.expect import answer_whole, billed, released, unreachable, whole_view
from tests.support.stub_provider import Out, SeenRequest

NOT_REACHED = r"Proxy error: \S+ cannot be reached\. Request id req_"
ABANDONED = f"the client left and the answer did not end within {SILENT_S} s$"
REFUSED = {
    "a certificate that it has signed itself": Place.SELF_SIGNED,
    "the certificate of another host": Place.OTHER_NAME,
    "a certificate that has expired": Place.EXPIRED,
    "an answer without TLS": Place.NO_TLS,
    "hanging up on the handshake": Place.TLS_CLOSED,
}


def cases(dialect: Dialect, *, is_stream: bool) -> Iterator[Case]:
    """All faults of this page."""

    async def whole(request: SeenRequest, out: Out, stage: Stage) -> None:
        await answer_whole(out, dialect, is_stream=is_stream)

    view = whole_view(dialect, is_stream=is_stream)
    yield Case("TLS: no fault", whole, view, billed(dialect), place=Place.TLS)
    cannot = unreachable(should_retry=True)
    for fault, place in REFUSED.items():
        yield Case(f"TLS: {fault}", nothing, cannot, released(None, NOT_REACHED), place=place)
    yield Case(
        "TLS: a handshake that hangs",
        nothing,
        cannot,
        released(None, NOT_REACHED),
        place=Place.TLS_SILENT,
        limits=Limits.UNCONNECTED,
        # However dear the model is: the request has not been sent.
        abandoned=released(None, ABANDONED),
    )
