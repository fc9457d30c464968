"""One life of the serving process: what `server/run.py` does, in simulated surroundings.

The relay, the ledger, the writer, the watchdog and the ASGI front are the real ones.
"""

import asyncio
import random
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from llmproxy import crediting
from llmproxy.body_reader import BodyReader
from llmproxy.errors import DatabaseError
from llmproxy.gate import Gate
from llmproxy.health import Health
from llmproxy.live_catalog import LiveCatalog
from llmproxy.live_keys import Pool
from llmproxy.metrics import Metrics
from llmproxy.order import Services
from llmproxy.quote import HoldPolicy
from llmproxy.recovery import EndsKeeper
from llmproxy.relay import Relay, Request, Snapshot
from llmproxy.server.boot import begin_boot
from llmproxy.server.proxy import BodyBudget, Door, HttpClient, Observer, serve_request
from llmproxy.server.run import _load_snapshot
from llmproxy.storage.database import Tx
from llmproxy.storage.writer import Writer
from llmproxy.watchdog import Limits, Watchdog
from tests.simulator.client import SimulatedConnection
from tests.simulator.disk import SimulatedDisk
from tests.simulator.plan import Act, Ask, Life
from tests.simulator.provider import VISIT_HEADER, SimulatedProbes, SimulatedUpstream
from tests.simulator.stand_ins import InOrder, SeededIds, Stepped
from tests.simulator.visit import Visit

if TYPE_CHECKING:
    from llmproxy.storage.spill import Spill
    from llmproxy.upstream import Upstream
    from tests.simulator.world import World

FAILURES_MAX = 3
"""Of a provider in a row."""
SHUTDOWN_TIMEOUT_S = 3.0
FORCED_STEP_S = 2.0
PATHS = {"openai": b"/v1/openai/chat/completions", "anthropic": b"/v1/anthropic/v1/messages"}
FREE_PATH = b"/v1/anthropic/v1/messages/count_tokens"


class BadJobError(Exception):
    """What a job raises that was made to fail."""


class Process:
    """One life of the serving process."""

    def __init__(self, world: "World", life: Life) -> None:
        self._world = world
        self._life = life
        self._loop = world.loop
        rng = random.Random(f"{world.plan.seed} {world.lives_begun}")
        self._disk = SimulatedDisk(
            rng,
            is_slow=world.plan.is_disk_slow,
            faults=life.disk_faults,
            written=world.checks.wallets,
        )
        keeper = EndsKeeper(cast("Spill", world.spill))
        self.writer: Writer[Snapshot] = Writer(world.files, keeper, self._disk)
        self._disk.connection = self.writer._connection
        self._disk.tell_commit = partial(setattr, self.writer._transaction, "commit_error")
        self._disk.note = world.note
        self._watchdog = Watchdog(_limits(world.plan.drains_max), world.clock)
        self._watchdog.exchanges = InOrder()
        self.visits: dict[int, Visit] = {}
        upstream = SimulatedUpstream(self.visits, world.plan.manners, self._before_sending)
        health = Health(self.writer.enqueue, world.clock, SimulatedProbes(rng), FAILURES_MAX)
        services = Services(
            self.writer,
            cast("Upstream", upstream),
            self._watchdog,
            LiveCatalog(lambda: world.catalog_path),
            world.clock,
            BodyReader(),
            health,
            Gate(self.writer, world.clock),
        )
        policy = HoldPolicy(world.plan.hold_stream_output_tokens)
        self._relay = Relay(services, self.writer, Pool(world.vault), policy)
        self._relay._ids = SeededIds(rng)
        self._door = Door(
            BodyBudget(100_000, 1_000_000), Observer(world.clock, Metrics(), log=None)
        )
        self.has_started = False

    @property
    def is_dead(self) -> bool:
        """Say whether it cannot write any more, though it runs."""
        return self.writer.is_broken or not self.has_started

    @property
    def is_calm(self) -> bool:
        """Say whether nothing kept it from its work: no stop, and no trouble with the disk."""
        life = self._life
        is_held_up = self._world.plan.is_disk_slow or any(act.takes_s > 1 for act in life.acts)
        return life.stop_at_s is None and not life.disk_faults and not is_held_up

    async def run(self) -> None:
        """Start, serve what comes, stop."""
        world, life, loop = self._world, self._life, self._loop
        acts = [loop.create_task(self._act(act)) for act in life.acts]
        for at_s, by_ms in life.clock_steps:
            loop.call_later(at_s, world.clock.step, by_ms)
        try:
            self.writer.start(partial(_load_snapshot, clock=world.clock), self._relay.publish)
            self._relay.holds.boot_id = await begin_boot(
                self.writer, world.files, cast("Spill", world.spill), world.clock
            )
        except DatabaseError as error:
            world.note(f"cannot start: {error}")
            await self._end(acts)
            return
        self.has_started = True
        world.checks.nothing_is_open("after the start")
        for at_s in life.bad_jobs_at_s:
            loop.call_later(at_s, self.writer.enqueue, _fail)
        watching = loop.create_task(self._watchdog.run())
        visits = [loop.create_task(self._come(ask)) for ask in life.asks]
        if not await _all_end(visits, life.stop_at_s):
            await self._stop(visits)
        self._check_at_rest()
        await self._end([*acts, watching])
        await self._end([*asyncio.all_tasks() - {asyncio.current_task()}])  # as uvloop.run does

    async def _stop(self, visits: "list[asyncio.Task[None]]") -> None:
        """Do what `ProxyServer.shutdown` does, and what `server/run.py` makes of it."""
        self._world.note("SIGTERM: nothing new is admitted")
        self._relay.is_draining = True
        for patience_s in (SHUTDOWN_TIMEOUT_S, FORCED_STEP_S, FORCED_STEP_S):
            if await _all_end(visits, patience_s):
                return
            self._watchdog.cut_all("the proxy was stopped")
        for task in visits:
            task.cancel()
        await _all_end(visits, FORCED_STEP_S)

    async def _end(self, tasks: "list[asyncio.Task[None]]") -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _check_at_rest(self) -> None:
        """Nothing is left of requests that are over."""
        door = self._door
        if door.budget._in_flight or door.observer.metrics.in_flight or self._watchdog.exchanges:
            self._world.checks.fail("something is left of requests that have ended")

    async def _act(self, act: Act) -> None:
        await asyncio.sleep(act.at_s)
        await self._world.office.do(act, self._world.note)

    # --- requests ----------------------------------------------------------------------------

    async def _come(self, ask: Ask) -> None:
        """Let one client come, and see its request through as a server does."""
        await asyncio.sleep(ask.at_s)
        world = self._world
        account = world.office.accounts[ask.person]
        note = partial(_note_visit, world.note, ask.number)
        visit = Visit(ask, note, account.person.name, account.api_key)
        visit.changes_at_arrival = world.office.changes
        visit.was_forbidden = account.is_disabled or ask.dialect in world.office.paused
        self.visits[ask.number] = visit
        note(f"{visit.user} asks {ask.model}, max {ask.output_max}, stream {ask.is_stream}")
        connection = SimulatedConnection(visit, world.checks.before_writing)
        connection.open()
        visit.has_begun = True
        task = self._loop.create_task(self._serve(visit, connection))
        try:
            await task
        except asyncio.CancelledError:
            visit.was_cancelled = True
            note("its task was cancelled")
            connection.abort()  # as uvicorn does with an answer that has no end
            task.cancel()  # it is this one that a stop cancels
            await asyncio.wait({task})
        if visit.ask.client.leaves_in_body or not visit.ended_cleanly:
            connection.abort()
        visit.has_ended = True

    def _serve(self, visit: Visit, connection: SimulatedConnection) -> "Coroutine[Any, Any, None]":
        async def handle(request: Request, client: HttpClient) -> None:
            visit.trace = request.trace
            await self._relay.handle(request, client)

        scope = {
            "method": "POST",
            "raw_path": FREE_PATH if visit.ask.is_free else PATHS[visit.ask.dialect],
            "query_string": b"",
            "headers": _headers(visit),
            "client": ("127.0.0.1", 0),
        }
        serving = serve_request(self._door, handle, scope, connection)
        return Stepped(serving, visit.ask.cancelled_at)

    def _before_sending(self, visit: Visit) -> None:
        self._world.checks.before_sending(visit, self._world.office)


async def _all_end(tasks: "list[asyncio.Task[None]]", within_s: float | None) -> bool:
    """Wait for tasks; say whether all of them have ended."""
    if not tasks:
        return True
    _, running = await asyncio.wait(tasks, timeout=within_s)
    return not running


def _headers(visit: Visit) -> list[tuple[bytes, bytes]]:
    headers = [
        (b"content-type", b"application/json"),
        (b"authorization", b"Bearer " + visit.api_key.encode()),
        (VISIT_HEADER, b"%d" % visit.ask.number),
    ]
    if visit.ask.clamps:
        headers.append((b"x-llmproxy-clamp", b"1"))
    return headers


def _note_visit(note: Callable[[str], None], number: int, text: str) -> None:
    note(f"[{number}] {text}")


def _fail(tx: Tx) -> None:
    crediting.credit(tx, 1, 1, actor="nobody", reason=None, now_ms=0)  # nothing of it may stay
    raise BadJobError


def _limits(drains_max: int) -> Limits:
    return Limits(
        first_byte_timeout_s=6.0,
        idle_timeout_s=4.0,
        total_timeout_s=20.0,
        drain_timeout_s=3.0,
        drains_max=drains_max,
        stall_timeout_s=2.0,
    )
