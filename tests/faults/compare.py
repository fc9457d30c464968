"""Compares what a client saw with what it must see."""

from tests.faults.cell import Bulk, Cell, Client, End, View
from tests.proxy.helpers import Got, Site
from tests.support.proxy import PROVIDER_KEY
from tests.support.raw_client import RawClient


def differs(cell: Cell, got: Got) -> list[str]:
    """Say what a client that stayed saw and should not have."""
    view = cell.case.view
    problems = []
    if got.status != view.status:
        problems.append(f"status {got.status}, not {view.status}: {got.body[:200]!r}")
        return problems
    if got.clean_end != (view.end is not End.CUT):
        problems.append(f"clean end: {got.clean_end}")
    problems += [f"header {name!r}" for name, _ in got.headers if name in cell.case.view_headers]
    if PROVIDER_KEY.encode() in got.body:
        problems.append("the provider's key")
    problems += _body_differs(cell, got, body_of(view))
    return problems


def differs_half_closed(cell: Cell, raw_client: RawClient) -> list[str]:
    """Say what a client saw that should not have: to have half-closed is to have left.

    The proxy hangs up at once, while the provider says nothing more; what had been passed on by
    then comes.

    Raises:
        TimeoutError: the proxy does not hang up.
    """
    if cell.client is Client.HALF_CLOSES:
        raw = b"".join(piece for _, piece in raw_client.recv_raw())
        return [f"an answer: {raw[:200]!r}"] if raw else []
    try:
        got = Site.take(raw_client)
    except ConnectionError:
        return []  # nothing had been passed on
    view = cell.case.view
    if view.end is End.OUR_ERROR:
        return differs(cell, got)  # what came before the fault was enough for it
    if got.status != view.status:
        return [f"status {got.status}: {got.body[:200]!r}"]
    body = body_of(view) or b""
    if view.end is End.CUT:  # more than what surely comes may have come
        return [] if got.body.startswith(body[: len(got.body)]) else ["another body"]
    if not body.startswith(got.body):
        return [f"body {_near(got.body, body)}"]
    if got.clean_end and (view.end is not End.CLEAN or got.body != body):
        return ["a clean end"]
    return []


def body_of(view: View) -> bytes | None:
    """Return what is passed on, all of it."""
    return view.body.made() if isinstance(view.body, Bulk) else view.body


def _body_differs(cell: Cell, got: Got, body: bytes | None) -> list[str]:
    view = cell.case.view
    is_google = cell.dialect.family == "gemini"
    if view.end is End.CLEAN:
        return [] if got.body == body else [f"body {_near(got.body, body)}"]
    if view.end is End.CUT:
        is_part = body is not None and body.startswith(got.body[: len(body)])
        return [] if is_part else ["another body"]
    if view.end is End.OUR_EVENT:
        return _event_differs(view, got, body, is_google=is_google)
    error = got.error()
    told = {
        "code": error["reason" if is_google else "code"],
        "x-should-retry": got.header("x-should-retry"),
    }
    wanted = {"code": view.code, "x-should-retry": view.should_retry}
    if view.retry_after is not None:
        told["retry-after"] = got.header("retry-after")
        wanted["retry-after"] = view.retry_after
    if view.should_retry is None:
        del told["x-should-retry"], wanted["x-should-retry"]
    return [] if told == wanted else [f"{told}, not {wanted}"]


def _event_differs(view: View, got: Got, body: bytes | None, *, is_google: bool) -> list[str]:
    # Google's SDKs skip events that have a name.
    begins = b'data: {"error":' if is_google else b"event: error\n"
    passed, mark, _ = got.body.rpartition(b"\n\n" + begins)
    if not mark:
        return [f"no error event of ours: {got.body[-300:]!r}"]
    problems = []
    name, data = got.last_event()
    request_id = (got.header("x-llmproxy-request-id") or b"").decode()
    code = data["error"]["reason" if is_google else "code"]
    wanted = (b"" if is_google else b"error", view.code, request_id)
    if (name, code, data["request_id"]) != wanted:
        problems.append(f"the last event is {data}")
    is_right = body is None or (body.startswith(passed) if view.is_beginning else passed == body)
    if not is_right:
        problems.append(f"passed on {_near(passed, body)}")
    return problems


def _near(found: bytes, wanted: bytes | None) -> str:
    """The place where two bodies part."""
    wanted = wanted or b""
    pairs = zip(found, wanted, strict=False)
    at = next(
        (at for at, (one, other) in enumerate(pairs) if one != other), min(len(found), len(wanted))
    )
    start = max(0, at - 20)
    return (
        f"differs at {at} of {len(found)}, {len(wanted)} wanted: "
        f"{found[start : at + 80]!r}, not {wanted[start : at + 80]!r}"
    )
