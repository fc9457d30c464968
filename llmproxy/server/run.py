"""Owns the life of the serving process: what is built in which order, and how it ends.

Start: lock, database, open holds of dead owners ended, then the port. Stop: no new requests,
running ones finish, all queued settlements are written, checkpoint, lock given back. A database
that has failed stops the process in the same way, only that settlements go to the spill.
"""

import asyncio
import contextlib
import gc
import logging
import os
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from functools import partial

import uvicorn
import uvloop
from litestar.types import ASGIApp

from llmproxy import accounts, key_pool
from llmproxy.body_reader import BodyReader
from llmproxy.catalog_overrides import read_overrides
from llmproxy.clock import Clock, rfc3339
from llmproxy.config import (
    Config,
    find_catalog,
    load_vault,
    load_vault_again,
    notify_socket,
)
from llmproxy.dashboard.address import says_where
from llmproxy.dashboard.admin.ledger_checks import LedgerChecks
from llmproxy.dashboard.admin.office import Office
from llmproxy.dashboard.site import Site
from llmproxy.dashboard.visit import ReachedAt
from llmproxy.errors import DatabaseError, RefusedError
from llmproxy.gate import Gate
from llmproxy.health import Health
from llmproxy.live_catalog import LiveCatalog
from llmproxy.live_keys import Pool
from llmproxy.logs import RequestLog, say, set_up_logs
from llmproxy.metrics import Metrics
from llmproxy.order import Services
from llmproxy.probe import ask, ask_closely
from llmproxy.quote import HoldPolicy
from llmproxy.recovery import EndsKeeper
from llmproxy.relay import Relay, Snapshot
from llmproxy.server.app import Parts, build_app
from llmproxy.server.banner import Started
from llmproxy.server.boot import advice, begin_boot
from llmproxy.server.metrics_page import MetricsPage
from llmproxy.server.notify import READY, STOPPING, notify
from llmproxy.server.process_limits import set_process_limits
from llmproxy.server.protocol import protocol_for
from llmproxy.server.proxy import BodyBudget, Door, Observer
from llmproxy.server.self_service import SelfService
from llmproxy.server.stopping import ProxyServer, signals_restored
from llmproxy.settings import Settings, trusted_networks
from llmproxy.storage.database import DatabaseFiles, Tx, require_serving_lock
from llmproxy.storage.reader import Reader
from llmproxy.storage.spill import Spill
from llmproxy.storage.writer import Writer
from llmproxy.upstream import Upstream
from llmproxy.watchdog import Limits, Watchdog

KEEPALIVE_S = 75
BACKLOG = 2048
GC_THRESHOLDS = (10_000, 20, 50)
"""Requests leave no cycles behind (tests/proxy/test_no_cycles.py), so looking for some after every
700 objects is wasted."""
ENDED_KEYS_MS = 2 * 86_400_000
"""So long API keys are remembered that have ended: no request runs as long (`total_timeout_s`)."""
CUT_PATIENCE_S = 5
"""For exchanges that are cut when the drain has ended: to tell their clients, and to settle."""

_log = logging.getLogger("llmproxy.server")


def serve(config: Config) -> int:
    """Serve until a signal says to stop; return the exit code.

    Raises:
        LlmproxyError: it cannot start: another server, a bad catalog, a port in use, …
        DatabaseError: the database has failed while it was served.
    """
    os.umask(0o077)
    set_up_logs(config.settings.log_level)
    set_process_limits()
    catalog = LiveCatalog(partial(find_catalog, config))
    pool = Pool(load_vault(config.paths), partial(load_vault_again, config.paths))
    files = DatabaseFiles(config.paths.database)
    holder = f"pid {os.getpid()}, since {rfc3339(Clock().now_ms())}"
    require_serving_lock(files, holder)
    try:
        with (
            _listen("port", config.settings.host, config.settings.port) as listener,
            _listen_apart(config.settings, "metrics") as metrics_listener,
            _listen_apart(config.settings, "dashboard") as dashboard_listener,
            signals_restored(),  # the last thing: no signal stops the writer from closing
        ):
            apart = [metrics_listener, dashboard_listener]
            listeners = [listener, *(each for each in apart if each is not None)]
            ports = (each.getsockname()[1] for each in (listener, dashboard_listener or listener))
            files.serving_lock.tell(f"{holder}, {says_where(config.settings, *ports)}")
            spill = Spill(files.spill)
            writer: Writer[Snapshot] = Writer(files, EndsKeeper(spill))
            try:
                begin = partial(begin_boot, writer, files, spill, Clock())
                uvloop.run(_serve(config, catalog, pool, writer, begin, listeners))
            except DatabaseError:
                if not writer.is_broken:
                    raise
            finally:
                # After the loop: tasks that it cancelled have queued their settlements.
                writer.close()
                spill.close()
            if writer.is_broken:
                raise DatabaseError(advice(files, writer.failure, writer.kept))
    finally:
        files.serving_lock.release()
    return 0


async def _serve(
    config: Config,
    catalog: LiveCatalog,
    pool: Pool,
    writer: Writer[Snapshot],
    begin: Callable[[], Awaitable[int]],
    listeners: list[socket.socket],
) -> None:
    upstream, bodies = Upstream(config.settings.connect_timeout_s), BodyReader()
    clock = Clock()
    watchdog = Watchdog(_limits(config.settings), clock)
    health = Health(
        writer.enqueue, clock, partial(ask, upstream), config.settings.pause_after_failures
    )
    gate = Gate(writer, clock, config.settings.total_timeout_s)
    services = Services(writer, upstream, watchdog, catalog, clock, bodies, health, gate)
    try:
        await _serve_with(services, config, pool, writer, begin, listeners)
    finally:
        health.close()
        bodies.close()
        await upstream.close()


async def _serve_with(
    services: Services,
    config: Config,
    pool: Pool,
    writer: Writer[Snapshot],
    begin: Callable[[], Awaitable[int]],
    listeners: list[socket.socket],
) -> None:
    settings, clock = config.settings, services.clock
    watchdog, catalog = services.watchdog, services.catalog
    policy = HoldPolicy(settings.hold_stream_output_tokens, is_strict=settings.strict)
    trusted = trusted_networks(settings)
    relay = Relay(services, writer, pool, policy, trusted)
    writer.start(partial(_load_snapshot, clock=clock), relay.publish)
    relay.holds.boot_id = await begin()
    observer = _observer(settings, clock)
    door = Door(BodyBudget(settings.body_bytes_max, settings.body_bytes_in_flight_max), observer)
    # For users' keys, for metrics, for pages: nobody's long question keeps another from an answer.
    own_reader, reader, pages_reader = (Reader(config.paths.database) for _ in range(3))
    page = MetricsPage(observer.metrics, writer, reader, pool, services, clock.now_ms())
    office = _office(config, services, relay)
    dashboard = _dashboard(listeners[0], pages_reader, writer, clock, office)
    app = build_app(
        Parts(
            relay,
            SelfService(relay, own_reader, clock, settings.total_timeout_s),
            door,
            writer,
            pool,
            page,
            settings.metrics_port,
            dashboard,
            settings.dashboard_port,
        )
    )
    loop = asyncio.get_running_loop()
    cut_all = partial(watchdog.cut_all, "the proxy was stopped")

    def stop() -> None:
        notify(notify_socket(), STOPPING)
        _log.info("stopping: %d requests are finishing", len(watchdog.exchanges))
        relay.is_draining = True
        loop.call_later(settings.shutdown_timeout_s, cut_all)

    def started() -> None:
        _settle_memory()
        address = listeners[0].getsockname()[:2]
        has_api_keys = relay.has_api_keys
        _announce(Started(config, address, catalog.current, pool, has_api_keys, clock.now_ms()))

    server = ProxyServer(
        _uvicorn_config(app, settings),
        on_started=started,
        on_stop=stop,
        on_forced_stop=cut_all,
        header_timeout_s=settings.header_timeout_s,
        body_timeout_s=settings.body_timeout_s,
    )
    with closing(own_reader), closing(reader), closing(pages_reader), closing(office.checks):
        async with asyncio.TaskGroup() as tasks:
            work = [watchdog.run(), catalog.watch(), _stop_when_failed(writer, server)]
            if observer.log is not None:
                work.append(observer.log.run())
            watching = [tasks.create_task(each) for each in work]
            try:
                await server.serve(listeners)
            finally:
                if observer.log is not None:
                    observer.log.flush()
            for task in watching:
                task.cancel()


def _office(config: Config, services: Services, relay: Relay) -> Office:
    checks = LedgerChecks(config.paths.database, services.clock)
    ask = partial(ask_closely, services.upstream)
    return Office(
        config=config,
        catalog=services.catalog,
        checks=checks,
        ask=ask,
        is_left_alone=services.health.is_left_alone,
        is_stopping=lambda: relay.is_draining,
    )


def _dashboard(
    listener: socket.socket, reader: Reader, writer: Writer[Snapshot], clock: Clock, office: Office
) -> Site | None:
    """Return what the dashboard shows and changes, None when it is switched off.

    `listener` is the proxy's own.
    """
    settings = office.config.settings
    if not settings.dashboard:
        return None
    proxy_port = listener.getsockname()[1] if settings.dashboard_port else 0
    address = ReachedAt(settings.public_url, trusted_networks(settings), proxy_port)
    return Site(address, reader, writer, clock, office)


def _settle_memory() -> None:
    """Tell the collector that what exists now lives on: it need never look at it again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


async def _stop_when_failed(writer: Writer[Snapshot], server: ProxyServer) -> None:
    """Stop as a signal does when the database has failed: nothing can be held any more."""
    await writer.failed.wait()
    server.should_exit = True


def _observer(settings: Settings, clock: Clock) -> Observer:
    log = None
    if settings.log_requests:
        log = RequestLog(sys.stderr.buffer, clock, is_terminal=sys.stderr.isatty())
    return Observer(clock, Metrics(), log)


def _load_snapshot(tx: Tx, *, clock: Clock) -> Snapshot:
    return Snapshot(
        principals=accounts.load_principals(tx, now_ms=clock.now_ms(), ended_for_ms=ENDED_KEYS_MS),
        providers=key_pool.list_providers(tx),
        provider_keys=key_pool.list_provider_keys(tx),
        overrides=read_overrides(tx),
    )


def _limits(settings: Settings) -> Limits:
    return Limits(
        first_byte_timeout_s=settings.first_byte_timeout_s,
        idle_timeout_s=settings.idle_timeout_s,
        total_timeout_s=settings.total_timeout_s,
        drain_timeout_s=settings.drain_timeout_s,
        drains_max=settings.drains_max,
        stall_timeout_s=settings.stall_timeout_s,
    )


def _uvicorn_config(app: ASGIApp, settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=protocol_for(settings.head_bytes_max, settings.connections_max, settings.metrics_port),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEPALIVE_S,
        timeout_graceful_shutdown=settings.shutdown_timeout_s + CUT_PATIENCE_S,
    )


def _listen(setting: str, host: str, port: int) -> socket.socket:
    """Return a listening socket; `setting` is what to change when there is none to be had.

    Raises:
        RefusedError: the address cannot be listened on.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    option = "--port" if setting == "port" else setting
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except (OSError, OverflowError) as error:
        msg = f"Cannot listen on {host} port {port}: {error}. Choose another {option}."
        raise RefusedError(msg) from error


@contextlib.contextmanager
def _listen_apart(settings: Settings, what: str) -> Iterator[socket.socket | None]:
    """Give a listening socket for what has a port of its own if it is set; None when it is not.

    Raises:
        RefusedError: the port is another's, or cannot be listened on.
    """
    ports = {"": settings.port, **_ports_apart(settings)}
    port, setting = ports.pop(what), f"{what}_port"
    if not port:
        yield None
        return
    if port in ports.values():
        msg = f"{setting} must be a port that nothing else here has. Choose another {setting}."
        raise RefusedError(msg)
    host = settings.metrics_host if what == "metrics" else settings.dashboard_host
    with _listen(setting, host, port) as listener:
        yield listener


def _ports_apart(settings: Settings) -> dict[str, int]:
    """Return the ports of what may have one of its own; 0 where it has none."""
    dashboard_port = settings.dashboard_port if settings.dashboard else 0
    return {"metrics": settings.metrics_port, "dashboard": dashboard_port}


def _announce(started: Started) -> None:
    """Tell who reads the log, and the service manager, that the server is there."""
    say(started.banner() if sys.stderr.isatty() else started.line())
    warning = started.warning()
    if warning:
        _log.warning(warning)
    notify(notify_socket(), READY)
