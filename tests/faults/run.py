"""Runs cells against the real program, all at once, and says what differs from what is expected.

Each cell has a user of its own. The provider knows a cell by a header of its request, which
passes as every unknown header does.
"""

import asyncio
import json
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from llmproxy import accounts, key_pool, ledger
from llmproxy.clock import Clock
from llmproxy.config import find_paths, load_or_make_vault
from llmproxy.presets import Preset
from tests.faults.cell import (
    MEETS_WITHIN_S,
    SILENT_S,
    Cell,
    Client,
    End,
    Limits,
    Place,
    Stage,
    View,
)
from tests.faults.expect import answer_whole
from tests.fixtures import CATALOG
from tests.proxy.helpers import CREDIT_NANOUSD, Got, Site
from tests.service.helpers import Books
from tests.support.proxy import PROVIDER_KEY, RunningProxy
from tests.support.raw_client import RawClient
from tests.support.stub_provider import Out, SeenRequest, StubProvider, closed_port

AT_ONCE = 48
AGAIN_MAX = 10
ENDS_WITHIN_S = 60.0
HEADER = "x-cell"
WARM = "warm"
SETTINGS = {
    Limits.PATIENT: {},
    Limits.HASTY: {"FIRST_BYTE_TIMEOUT_S": SILENT_S, "IDLE_TIMEOUT_S": SILENT_S},
    Limits.BRIEF_DRAIN: {"DRAIN_TIMEOUT_S": SILENT_S},
}


class Outcome(NamedTuple):
    """What a cell came to, and what of it was not expected."""

    cell: Cell
    problems: list[str]


def run(cells: Iterable[Cell], home: Path) -> list[Outcome]:
    """Run cells; the books must be right at the end.

    Cells that share a provider share its connections, and what one has done to a connection can
    meet the next on a busy machine. So a few that are not as expected get one more run, each alone.
    """
    outcomes = _run_all(cells, home / "together", AT_ONCE)
    odd = [outcome for outcome in outcomes if outcome.problems]
    if not 0 < len(odd) <= AGAIN_MAX:
        return outcomes
    for outcome in odd:
        print(f"once more, alone: {outcome.cell}: {'; '.join(outcome.problems)}")
    alone = _run_all([outcome.cell for outcome in odd], home / "alone", at_once=1)
    return [outcome for outcome in outcomes if not outcome.problems] + alone


def _run_all(cells: Iterable[Cell], home: Path, at_once: int) -> list[Outcome]:
    home.mkdir()
    outcomes = []
    for limits in Limits:
        chosen = [cell for cell in cells if cell.limits is limits]
        if chosen:
            outcomes += _run_with(limits, chosen, home / limits.name.lower(), at_once)
    return outcomes


def _run_with(limits: Limits, cells: list[Cell], home: Path, at_once: int) -> list[Outcome]:
    with ExitStack() as stack:
        site = stack.enter_context(_site(limits, cells, home))
        with ThreadPoolExecutor(at_once) as pool:
            viewed = list(pool.map(site.visit, cells))
        rows = site.settled_rows()
        outcomes = []
        for cell, seen in zip(cells, viewed, strict=True):
            booked = site.check_books(cell, rows.get(f"u{cell.number}", []))
            outcomes.append(Outcome(cell, [*seen, *booked]))
    return outcomes


@contextmanager
def _site(limits: Limits, cells: list[Cell], home: Path) -> Iterator["_Site"]:
    home.mkdir()
    catalog = home / "catalog.json"
    catalog.write_text(json.dumps(_catalog(cells)))
    environ = {f"LLMPROXY_{name}": str(value) for name, value in SETTINGS[limits].items()}
    environ |= {"LLMPROXY_CATALOG_FILE": str(catalog), "LLMPROXY_DRAINS_MAX": "10000"}
    with ExitStack() as stack:
        proxy = stack.enter_context(RunningProxy(home, environ))
        proxy.run("providers", "list")
        books = Books(home)
        stack.callback(books.close)
        servers = {place: stack.enter_context(StubProvider()) for place in Place}
        own = {
            cell.number: stack.enter_context(StubProvider())
            for cell in cells
            if cell.case.place is Place.OWN
        }
        site = _Site(proxy, books, servers, own, cells)
        site.set_up()
        proxy.start()
        yield site
        proxy.verify_ledger()
        assert "internal error" not in proxy.log.read_text()


def provider_name(cell: Cell) -> str:
    """Cells whose fault takes the provider's key out of use have a provider of their own."""
    if cell.case.rests_key or cell.case.place is Place.OWN:
        return f"own-{cell.number}"
    return f"{cell.case.place.name.lower()}-{cell.dialect.family}"


def _catalog(cells: list[Cell]) -> dict[str, Any]:
    """The catalog of the fixtures, each model at every provider that it is asked of here."""
    catalog: dict[str, Any] = json.loads(CATALOG.read_bytes())
    priced = catalog["models"]
    for cell in cells:
        model = cell.dialect.fields["model"]
        priced[f"{provider_name(cell)}/{model}"] = priced[f"{cell.dialect.family}/{model}"]
    return catalog


class _Site:
    """A running proxy with its providers and its users."""

    def __init__(
        self,
        proxy: RunningProxy,
        books: Books,
        servers: dict[Place, StubProvider],
        own: dict[int, StubProvider],
        cells: list[Cell],
    ) -> None:
        self._proxy = proxy
        self._books = books
        self._servers = servers
        self._own = own
        self._cells = cells
        self._stages = {cell.number: Stage(cell.client) for cell in cells}
        self._by_number = {cell.number: cell for cell in cells}
        self._keys: dict[str, str] = {}
        self._sent: list[int] = []
        """The cells whose requests have come to a provider."""
        for server in (*servers.values(), *own.values()):
            server.handle = self._answer
        servers[Place.UNREAD].read_bodies = False
        servers[Place.RESET].on_connect = _reset

    # --- before ---

    def set_up(self) -> None:
        """Make the users and the providers."""
        vault = load_or_make_vault(find_paths(self._proxy.environ), self._proxy.environ)
        now_ms = Clock().now_ms()
        urls = {provider_name(cell): (cell.dialect.family, self._url(cell)) for cell in self._cells}
        with self._books.write() as tx:
            for name, (family, url) in urls.items():
                base_url = f"{url}/v1" if family == "openai" else url
                key_pool.add_provider(tx, name, Preset(family, base_url), now_ms=now_ms)
                key_pool.add_provider_key(
                    tx, name, PROVIDER_KEY, name=None, vault=vault, actor="test", now_ms=now_ms
                )
            for name in [WARM, *(f"u{cell.number}" for cell in self._cells)]:
                user = accounts.create_user(tx, name, now_ms=now_ms)
                ledger.credit(
                    tx, user.wallet_id, CREDIT_NANOUSD, actor="test", reason=None, now_ms=now_ms
                )
                self._keys[name] = accounts.create_api_key(tx, user, "test", now_ms=now_ms)

    def _url(self, cell: Cell) -> str:
        if cell.case.place is Place.CLOSED:
            return f"http://127.0.0.1:{closed_port()}"
        if cell.case.place is Place.OWN:
            return self._own[cell.number].url
        return self._servers[cell.case.place].url

    # --- the provider's side ---

    async def _answer(self, request: SeenRequest, out: Out) -> None:
        name = request.header(HEADER)
        assert name is not None
        if name.startswith(WARM.encode()):
            cell = self._by_number[int(name.removeprefix(WARM.encode()))]
            await answer_whole(out, cell.dialect, is_stream=False)
            return
        cell, stage = self._by_number[int(name)], self._stages[int(name)]
        self._sent.append(cell.number)
        await stage.begins()
        try:
            await cell.case.handle(request, out, stage)
        finally:
            await stage.ends()

    # --- the client's side ---

    def visit(self, cell: Cell) -> list[str]:
        """Be the cell's client; return what it saw that it should not have."""
        if cell.case.place is Place.OWN:
            with self._send(cell, WARM, f"{WARM}{cell.number}", is_stream=False) as warm:
                if Site.take(warm).status != 200:
                    return ["the connection could not be warmed"]
        stage = self._stages[cell.number]
        name = f"u{cell.number}"
        with self._send(cell, name, str(cell.number), is_stream=cell.is_stream) as client:
            if cell.client is Client.STAYS:
                try:
                    got = Site.take(client)
                except (ConnectionError, TimeoutError) as error:
                    return [f"no answer: {error!r}"]
                return differs(cell, got)
            try:
                stage.reached.result(MEETS_WITHIN_S)
            except TimeoutError:
                return ["the provider did not come to where the client leaves"]
            if cell.client is Client.LEAVES_EARLY:
                client.close()
            else:
                client.abort()
            stage.left.set_result(None)
        return []

    def _send(self, cell: Cell, user: str, mark: str, *, is_stream: bool) -> RawClient:
        client = RawClient(self._proxy.port, timeout_s=MEETS_WITHIN_S)
        body = cell.dialect.body(is_stream=is_stream, padding_bytes=cell.case.padding_bytes)
        headers = {"authorization": f"Bearer {self._keys[user]}", HEADER: mark}
        client.post(f"/v1/{provider_name(cell)}/{cell.dialect.path}", body, headers)
        return client

    # --- after ---

    def settled_rows(self) -> dict[str, list[dict[str, Any]]]:
        """The reporting rows of every user, once no hold is open any more."""
        deadline = time.monotonic() + ENDS_WITHIN_S
        while self._books.count("SELECT count(*) FROM holds WHERE state = 'open'"):
            if time.monotonic() > deadline:
                break
            time.sleep(0.02)
        rows: dict[str, list[dict[str, Any]]] = {}
        with self._books.database.read() as tx:
            found = tx.execute(
                """SELECT users.name AS user, balance_nanousd, held_nanousd, requests.*
                   FROM requests JOIN users ON users.id = requests.user_id
                   JOIN wallets ON wallets.user_id = users.id"""
            ).fetchall()
        for row in found:
            rows.setdefault(row["user"], []).append(dict(row))
        return rows

    def check_books(self, cell: Cell, rows: list[dict[str, Any]]) -> list[str]:
        """Say what of a cell's row and wallet is not as expected."""
        if len(rows) != 1:
            return [f"{len(rows)} rows"]
        row = rows[0]
        problems = cell.row.differs(row)
        cost = cell.row.cost_nanousd
        charged = min(cost, CREDIT_NANOUSD)
        wanted = {
            "charged_nanousd": charged,
            "shortfall_nanousd": cost - charged,
            "balance_nanousd": CREDIT_NANOUSD - charged,
            "held_nanousd": 0,
            "attempts": 1,
        }
        if cell.client is Client.STAYS:
            wanted["status"] = cell.case.view.status
        for key, want in wanted.items():
            if row[key] != want:
                problems.append(f"{key} {row[key]!r}, not {want!r}")
        sent = self._sent.count(cell.number)
        if sent > 1:
            problems.append(f"sent to the provider {sent} times")
        return problems


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
    problems += _body_differs(view, got)
    return problems


def _body_differs(view: View, got: Got) -> list[str]:
    if view.end is End.CLEAN:
        return [] if got.body == view.body else [f"body {_near(got.body, view.body)}"]
    if view.end is End.CUT:
        is_part = view.body is not None and view.body.startswith(got.body[: len(view.body)])
        return [] if is_part else ["another body"]
    if view.end is End.OUR_EVENT:
        return _event_differs(view, got)
    error = got.error()
    told = {"code": error["code"], "x-should-retry": got.header("x-should-retry")}
    wanted = {"code": view.code, "x-should-retry": view.should_retry}
    if view.retry_after is not None:
        told["retry-after"] = got.header("retry-after")
        wanted["retry-after"] = view.retry_after
    if view.should_retry is None:
        del told["x-should-retry"], wanted["x-should-retry"]
    return [] if told == wanted else [f"{told}, not {wanted}"]


def _event_differs(view: View, got: Got) -> list[str]:
    passed, mark, _ = got.body.rpartition(b"\n\nevent: error\n")
    if not mark:
        return [f"no error event of ours: {got.body[-300:]!r}"]
    problems = []
    name, data = got.last_event()
    request_id = (got.header("x-llmproxy-request-id") or b"").decode()
    if (name, data["error"]["code"], data["request_id"]) != (b"error", view.code, request_id):
        problems.append(f"the last event is {data}")
    if view.body is not None and passed != view.body:
        problems.append(f"passed on {_near(passed, view.body)}")
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


async def _reset(out: Out) -> None:
    out.abort()
    await asyncio.sleep(0)
