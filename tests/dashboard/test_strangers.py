"""Who is not signed in, or asks for too much at once, keeps nobody else waiting."""

import asyncio
import gc
import threading
import weakref
from pathlib import Path
from typing import Any, cast

import pytest

from llmproxy import accounts, audit
from llmproxy.catalog import Catalog
from llmproxy.clock import Clock
from llmproxy.dashboard import site as site_module
from llmproxy.dashboard.admin import catalog as catalog_pages
from llmproxy.dashboard.admin import catalog_views
from llmproxy.dashboard.admin.catalog_views import Found, Wanted
from llmproxy.dashboard.errors import BusyError, NotSignedInError
from llmproxy.dashboard.signed_in import SignedIn, write_beside
from llmproxy.dashboard.site import (
    READS_OF_ONE_MAX,
    STRANGERS_AT_ONCE_MAX,
    STRANGERS_OF_ONE_MAX,
    Site,
)
from llmproxy.dashboard.slots import Slots
from llmproxy.dashboard.visit import ReachedAt
from llmproxy.live_catalog import LiveCatalog
from llmproxy.storage.database import Tx
from tests.dashboard.helpers import KEYS, Desk
from tests.dashboard.operators import ADMIN
from tests.dashboard.rooms import NONE, Rooms

MADE_UP = "A" * 43
"""It has the shape of a session's secret."""


@pytest.mark.parametrize(
    ("path", "cookie", "status"),
    [
        (KEYS, MADE_UP, 401),
        (KEYS, "x", 401),
        (f"{ADMIN}/providers/openai/keys", MADE_UP, 401),
        (f"{ADMIN}/pool/set", MADE_UP, 401),
        ("/dashboard/sign-out", "x", 303),
        ("/dashboard/sign-out", MADE_UP, 303),
        (f"/dashboard/sign-in/{MADE_UP}", "", 404),
    ],
)
def test_a_stranger_does_not_come_before_the_writer(
    desk: Desk, path: str, cookie: str, status: int
) -> None:
    """Nothing can be written while this lasts: who is answered has not asked for it."""
    nobody = desk.visitor()
    nobody.cookies.set("llmproxy-session", cookie)
    with desk.books.write():
        answer = nobody.submit(path, name="x", secret="sk-0123456789", usd="1", provider="openai")
    assert answer.status_code == status


def test_who_is_no_operator_waits_for_no_file(desk: Desk) -> None:
    ann = desk.signed_in()
    with desk.books.write():
        answer = ann.submit(f"{ADMIN}/providers/openai/keys", secret="sk-0123456789")
    assert answer.status_code == 403


# --- a site without a server --------------------------------------------------------------------


@pytest.mark.parametrize("are_known", [True, False])
def test_one_user_takes_only_a_few_reads_and_leaves_the_rest_to_others(
    rooms: Rooms, are_known: bool
) -> None:
    """However many sessions they have, and whether or not these were seen before."""
    may_go_on = threading.Event()
    with rooms.book.write() as tx:
        accounts.create_user(tx, "ben", now_ms=Clock().now_ms())

    def name_of(tx: Tx, signed_in: SignedIn) -> str:
        del tx
        return signed_in.user.name

    def wait(tx: Tx, signed_in: SignedIn) -> str:
        assert may_go_on.wait(10)
        return name_of(tx, signed_in)

    async def ask() -> None:
        greedy = [rooms.signed_in() for _ in range(READS_OF_ONE_MAX + 2)]
        other = rooms.signed_in("ben")
        for request in (*greedy, other) if are_known else ():
            await rooms.site.read_as_user(request, name_of)
        asked = [
            asyncio.create_task(rooms.site.read_as_user(each, wait)) for each in (*greedy, other)
        ]
        refused = set[asyncio.Task[Any]]()
        while len(refused) < 2:  # those beyond what one user may have
            refused, _ = await asyncio.wait(asked, timeout=0.01)
        assert {type(task.exception()) for task in refused} == {BusyError}
        may_go_on.set()
        done = [task.result()[1] for task in asked if task not in refused and await task]
        assert done == ["ann"] * READS_OF_ONE_MAX + ["ben"]
        # They are given back, of each session.
        for request in greedy:
            assert (await rooms.site.read_as_user(request, name_of))[1] == "ann"

    asyncio.run(ask())


def test_slots_are_counted_for_each_and_for_all() -> None:
    slots = Slots("things", of_all=8, of_one=2)
    for who in range(4):
        for _ in range(2):
            slots.take(who)
        with pytest.raises(BusyError, match="too many things at once"):
            slots.take(who)
    with pytest.raises(BusyError):
        slots.take(99)
    slots.give_back(0)
    slots.take(99)
    with pytest.raises(BusyError):
        slots.take(0)


@pytest.mark.parametrize(
    ("addresses", "let_through"),
    [
        (["10.0.0.7"], STRANGERS_OF_ONE_MAX),
        ([f"2001:db8::{n:x}" for n in range(80)], STRANGERS_OF_ONE_MAX),  # one household
        ([f"10.0.0.{n}" for n in range(80)], STRANGERS_AT_ONCE_MAX),
    ],
    ids=["one address", "one household", "many addresses"],
)
def test_made_up_sessions_take_no_users_place(
    rooms: Rooms, addresses: list[str], let_through: int
) -> None:
    """As many as wait for the reader, each with another secret: users who are known wait behind."""
    may_go_on, at_work = threading.Event(), threading.Event()
    with rooms.book.write() as tx:
        accounts.create_user(tx, "ben", now_ms=Clock().now_ms())

    def wait(_: Tx) -> None:
        at_work.set()
        assert may_go_on.wait(10)

    def name_of(tx: Tx, signed_in: SignedIn) -> str:
        del tx
        return signed_in.user.name

    async def ask() -> None:
        site, ben = rooms.site, rooms.signed_in("ben", "192.0.2.1")
        await site.require_user(ben)
        busy = asyncio.create_task(rooms.reader.read(wait))
        await asyncio.to_thread(at_work.wait, 10)
        made_up = [
            asyncio.create_task(site.require_user(rooms.with_session(f"{n:043}", address)))
            for n, address in enumerate(addresses * (80 // len(addresses)))
        ]
        await asyncio.sleep(0)  # each begins, and waits for the reader or is refused
        refused = [task for task in made_up if task.done()]
        asked = [asyncio.create_task(site.read_as_user(ben, name_of)) for _ in range(3)]
        if let_through < STRANGERS_AT_ONCE_MAX:  # then who comes from elsewhere is looked up, too
            ann = rooms.signed_in("ann", "192.0.2.1")
            asked.append(asyncio.create_task(site.read_as_user(ann, name_of)))
        await asyncio.sleep(0)
        may_go_on.set()
        await busy
        assert len(refused) == len(made_up) - let_through
        assert [(await task)[1] for task in asked] == ["ben"] * 3 + ["ann"] * (len(asked) - 3)
        assert {type(task.exception()) for task in refused} == {BusyError}
        rest = [task for task in made_up if task not in refused]
        ended = await asyncio.gather(*rest, return_exceptions=True)
        assert [type(each) for each in ended] == [NotSignedInError] * let_through

    asyncio.run(ask())


def test_files_are_written_by_one_at_a_time(rooms: Rooms, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two that could be under way at once would meet."""
    meeting, write = threading.Barrier(2), write_beside
    met: list[bool] = []

    class Server:
        """What the site needs of a server to write files."""

        def __init__(self, path: Path) -> None:
            self.database = path
            self.paths = self.config = self

        async def refresh(self) -> None:
            """Nobody else has a snapshot."""

    def write_in_company(*args: Any) -> object:  # noqa: ANN401 - as they come
        try:
            meeting.wait(0.5)
            met.append(True)
        except threading.BrokenBarrierError:
            met.append(False)
        return write(*args)

    def note(tx: Tx, signed_in: SignedIn) -> int:
        signed_in.note(tx, "tests note", "")
        return audit.count(tx)

    server = Server(rooms.book.path)
    site = Site(
        ReachedAt("", (), 0), rooms.reader, cast("Any", server), Clock(), cast("Any", server)
    )
    monkeypatch.setattr(site_module, "write_beside", write_in_company)

    async def write_both() -> list[int]:
        request = rooms.signed_in()
        done = await asyncio.gather(
            *(site.write_with_files_as_admin(request, note) for _ in range(2))
        )
        return [count for _, count in done]

    assert sorted(asyncio.run(write_both())) == [1, 2]
    assert met == [False, False]


def test_what_is_committed_is_made_known_even_if_whoever_asked_has_gone(rooms: Rooms) -> None:
    """A request is cancelled at the worst moment: after the commit, before the proxy knows.

    What is left to do waits for a future that nobody else holds: without the site it was collected.
    """
    committed, known = asyncio.Event(), asyncio.Event()
    held: list[weakref.ref[asyncio.Future[None]]] = []

    class Writer:
        """Commits at once, and tells of it when it may."""

        async def submit(self, function: Any, *args: object) -> object:  # noqa: ANN401 - f(tx, …)
            with rooms.book.write() as tx:
                done: object = function(tx, *args)
            awaited = asyncio.get_running_loop().create_future()
            held.append(weakref.ref(awaited))
            committed.set()
            await awaited
            return done

        async def publish_own(self) -> None:
            known.set()

    def note(tx: Tx, signed_in: SignedIn) -> None:
        signed_in.note(tx, "tests note", "")

    async def leave_in_between() -> None:
        site = Site(ReachedAt("", (), 0), rooms.reader, cast("Any", Writer()), Clock(), NONE)
        asked = asyncio.create_task(site.write_as_user(rooms.signed_in(), note))
        await committed.wait()
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        del asked
        await asyncio.sleep(0)  # until the loop itself has nothing to do with it any more
        gc.collect()
        awaited = held[0]()
        assert awaited is not None, "nobody holds what is left to do"
        assert not known.is_set()
        awaited.set_result(None)
        del awaited
        await asyncio.wait_for(known.wait(), 10)

    asyncio.run(leave_in_between())
    with rooms.book.read() as tx:
        assert audit.count(tx) == 1


def test_the_catalog_is_searched_beside_the_loop(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched_in: list[threading.Thread] = []
    find_models = catalog_views.find_models

    def find(catalog: Catalog, wanted: Wanted) -> Found:
        searched_in.append(threading.current_thread())
        return find_models(catalog, wanted)

    class Server:
        """What the page needs of a server."""

        catalog = LiveCatalog(lambda: None)

    monkeypatch.setattr(catalog_pages, "find_models", find)
    site = Site(ReachedAt("", (), 0), rooms.reader, NONE, Clock(), cast("Any", Server))
    show_list = catalog_pages.catalog_routes(site)[0]

    async def show() -> bytes:
        await site.prepare()
        answer: Any = await cast("Any", show_list.fn)(rooms.signed_in())
        return bytes(answer.content)

    assert b"/admin/catalog/model?" in asyncio.run(show())
    assert [each is threading.main_thread() for each in searched_in] == [False]
