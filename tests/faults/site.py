"""The real program with all that the cells of the matrix need: providers, users, prices.

Each cell has a user of its own. The provider knows a cell by a header of its request, which
passes as every unknown header does. No two cells share a connection to the provider, so that none
can meet what another one has done to it (cell.Place).
"""

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from llmproxy import accounts, crediting, key_pool, provider_setup
from llmproxy.clock import Clock
from llmproxy.config import find_paths, load_or_make_vault
from llmproxy.presets import Preset
from tests.faults.cell import (
    MEETS_WITHIN_S,
    SILENT_S,
    TOTAL_S,
    Cell,
    Client,
    End,
    Limits,
    Place,
    Stage,
)
from tests.faults.certificates import Authority
from tests.faults.compare import body_of, differs, differs_half_closed
from tests.faults.expect import answer_whole
from tests.fixtures import CATALOG
from tests.proxy.helpers import CREDIT_NANOUSD
from tests.proxy.helpers import Site as Helpers
from tests.service.helpers import Books
from tests.support.proxy import PROVIDER_KEY, RunningProxy
from tests.support.raw_client import RawClient
from tests.support.stub_provider import Out, SeenRequest, StubProvider, closed_port

ENDS_WITHIN_S = 60.0
HEADER = "x-cell"
WARM = "warm"
SETTINGS = {
    Limits.PATIENT: {},
    Limits.HASTY: {
        "FIRST_BYTE_TIMEOUT_S": SILENT_S,
        "IDLE_TIMEOUT_S": SILENT_S,
    },
    Limits.UNCONNECTED: {"CONNECT_TIMEOUT_S": SILENT_S},
    Limits.SHORT: {
        "FIRST_BYTE_TIMEOUT_S": SILENT_S,
        "IDLE_TIMEOUT_S": SILENT_S,
        "TOTAL_TIMEOUT_S": TOTAL_S,
    },
    Limits.WATCHED: {},
    Limits.BRIEF_DRAIN: {"DRAIN_TIMEOUT_S": SILENT_S, "CONNECT_TIMEOUT_S": 60},
}


@contextmanager
def open_site(limits: Limits, cells: list[Cell], home: Path) -> Iterator["Site"]:
    """Start the program with all that these cells need; its books must be right at the end."""
    home.mkdir()
    catalog = home / "catalog.json"
    catalog.write_text(json.dumps(_catalog(cells)))
    environ = {f"LLMPROXY_{name}": str(value) for name, value in SETTINGS[limits].items()}
    environ |= {"LLMPROXY_CATALOG_FILE": str(catalog), "LLMPROXY_DRAINS_MAX": "10000"}
    environ["LLMPROXY_PAUSE_AFTER_FAILURES"] = "0"  # they all fail, all the time
    authority = Authority(home)
    environ["SSL_CERT_FILE"] = str(authority.file)
    with ExitStack() as stack:
        proxy = stack.enter_context(RunningProxy(home, environ))
        proxy.run("providers", "list")
        books = Books(home)
        stack.callback(books.close)
        servers = _Servers(stack, cells, authority)
        site = Site(proxy, books, servers, cells)
        site.set_up()
        proxy.start()
        yield site
        proxy.verify_ledger()
        assert "internal error" not in proxy.log.read_text()


class _Servers:
    """The providers' side: one server for each place, and those that cells have alone."""

    def __init__(self, stack: ExitStack, cells: list[Cell], authority: Authority) -> None:
        """Start them, for as long as the stack is open."""
        tls = {
            Place.TLS: authority.trusted,
            Place.SELF_SIGNED: authority.self_signed,
            Place.OTHER_NAME: authority.of_another_name,
            Place.EXPIRED: authority.expired,
        }
        self._shared: dict[Place, StubProvider] = {}
        for place in Place:
            if place.is_of_one_cell:
                continue
            stub = StubProvider(tls[place]() if place in tls else None)
            stub.keeps_alive = False
            self._shared[place] = stack.enter_context(stub)
        self._shared[Place.UNREAD].read_bodies = False
        self._shared[Place.RESET].on_connect = _reset
        self._shared[Place.NO_TLS].on_connect = _answer_plainly
        self._shared[Place.TLS_CLOSED].on_connect = _hang_up
        self._own = {
            cell.number: stack.enter_context(StubProvider())
            for cell in cells
            if cell.case.place.is_of_one_cell
        }

    def of(self, cell: Cell) -> StubProvider:
        """Return the server of a cell."""
        return self._own.get(cell.number) or self._shared[cell.case.place]

    def __iter__(self) -> Iterator[StubProvider]:
        """All of them."""
        yield from self._shared.values()
        yield from self._own.values()

    def url(self, cell: Cell) -> str:
        """Return the address of a cell's server."""
        place = cell.case.place
        if place is Place.CLOSED:
            return f"http://127.0.0.1:{closed_port()}"
        url = self.of(cell).url
        is_tls = place in {Place.NO_TLS, Place.TLS_CLOSED, Place.TLS_SILENT}
        return url.replace("http:", "https:") if is_tls else url


def provider_name(cell: Cell) -> str:
    """Cells whose fault takes the provider's key out of use have a provider of their own."""
    if cell.case.rests_key or cell.case.place.is_of_one_cell:
        return f"own-{cell.number}"
    return f"{cell.case.place.name.lower()}-{cell.dialect.family}"


def _catalog(cells: list[Cell]) -> dict[str, Any]:
    """The catalog of the fixtures, each model at every provider that it is asked of here."""
    catalog: dict[str, Any] = json.loads(CATALOG.read_bytes())
    priced = catalog["models"]
    for cell in cells:
        model = cell.dialect.model
        priced[f"{provider_name(cell)}/{model}"] = priced[f"{cell.dialect.family}/{model}"]
    return catalog


class Site:
    """A running proxy with its providers and its users."""

    def __init__(
        self,
        proxy: RunningProxy,
        books: Books,
        servers: _Servers,
        cells: list[Cell],
    ) -> None:
        self._proxy = proxy
        self._books = books
        self._servers = servers
        self._cells = cells
        self._stages = {cell.number: Stage(cell.client) for cell in cells}
        self._by_number = {cell.number: cell for cell in cells}
        self._keys: dict[str, str] = {}
        self._sent: list[int] = []
        """The cells whose requests have come to a provider."""
        for server in servers:
            server.handle = self._answer
        for cell in cells:
            if cell.case.place is Place.TLS_SILENT:
                servers.of(cell).on_connect = partial(_say_nothing, self._stages[cell.number])

    # --- before ---

    def set_up(self) -> None:
        """Make the users and the providers."""
        vault = load_or_make_vault(find_paths(self._proxy.environ), self._proxy.environ)
        now_ms = Clock().now_ms()
        urls = {
            provider_name(cell): (cell.dialect.family, self._servers.url(cell))
            for cell in self._cells
        }
        with self._books.write() as tx:
            for name, (family, url) in urls.items():
                base_url = f"{url}/v1" if family == "openai" else url
                provider_setup.add_provider(tx, name, Preset(family, base_url), now_ms=now_ms)
                key_pool.add_provider_key(
                    tx, name, PROVIDER_KEY, name=None, vault=vault, actor="test", now_ms=now_ms
                )
            for name in [WARM, *(f"u{cell.number}" for cell in self._cells)]:
                user = accounts.create_user(tx, name, now_ms=now_ms)
                crediting.credit(
                    tx, user.wallet_id, CREDIT_NANOUSD, actor="test", reason=None, now_ms=now_ms
                )
                self._keys[name] = accounts.create_api_key(tx, user, "test", now_ms=now_ms)

    # --- the provider's side ---

    async def _answer(self, request: SeenRequest, out: Out) -> None:
        if request.method == "GET":  # the proxy asks whether a key that was refused is good
            await out.json(401, {})
            return
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
                if Helpers.take(warm).status != 200:
                    return ["the connection could not be warmed"]
        stage = self._stages[cell.number]
        name = f"u{cell.number}"
        with self._send(cell, name, str(cell.number), is_stream=cell.is_stream) as client:
            if cell.client is Client.STAYS:
                view = cell.case.view
                try:
                    got = Helpers.take(client)
                except ConnectionError as error:
                    # A head leaves in a moment, or with the first of the body; here was neither.
                    if view.end is End.CUT and not body_of(view):
                        return []
                    return [f"no answer: {error!r}"]
                except TimeoutError as error:
                    return [f"no answer: {error!r}"]
                return differs(cell, got)
            try:
                stage.reached.result(MEETS_WITHIN_S)
            except TimeoutError:
                return ["the provider did not come to where the client leaves"]
            problems = self._leave(cell, client)
            stage.left.set_result(None)
            return problems

    @staticmethod
    def _leave(cell: Cell, client: RawClient) -> list[str]:
        if cell.client.half_closes:
            client.half_close()
            try:
                return differs_half_closed(cell, client)
            except TimeoutError:
                return ["the proxy does not hang up on a client that has half-closed"]
        if cell.client is Client.LEAVES_EARLY:
            client.close()
        else:
            client.abort()
        return []

    def _send(self, cell: Cell, user: str, mark: str, *, is_stream: bool) -> RawClient:
        client = RawClient(self._proxy.port, timeout_s=MEETS_WITHIN_S)
        body = cell.dialect.body(is_stream=is_stream, padding_bytes=cell.case.padding_bytes)
        headers = {"authorization": f"Bearer {self._keys[user]}", HEADER: mark}
        client.post(f"/v1/{provider_name(cell)}/{cell.dialect.path}", body, headers)
        return client

    # --- after ---

    @property
    def pid(self) -> int:
        """The program's process."""
        return self._proxy.pid

    def wait_for_ends(self) -> None:
        """Return when no hold is open any more, or when that has taken too long."""
        deadline = time.monotonic() + ENDS_WITHIN_S
        while self._books.count("SELECT count(*) FROM holds WHERE state = 'open'"):
            if time.monotonic() > deadline:
                break
            time.sleep(0.02)

    def settled_rows(self) -> dict[str, list[dict[str, Any]]]:
        """The reporting rows of every user, once no hold is open any more."""
        self.wait_for_ends()
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


async def _reset(out: Out) -> None:
    out.abort()
    await asyncio.sleep(0)


async def _answer_plainly(out: Out) -> None:
    await out.send(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
    out.close()


async def _hang_up(out: Out) -> None:
    out.close()
    await asyncio.sleep(0)


async def _say_nothing(stage: Stage, out: Out) -> None:
    await stage.begins()
    await stage.hangs(out)
