"""The stop, when it is disturbed: by signals, a foreign writer, clients that do not go on."""

import json
import signal
import sqlite3
import threading
import time
from contextlib import ExitStack, closing
from pathlib import Path

from tests.service.helpers import CHAT, ask, bearer, chat_body
from tests.service.test_lifecycle import refuses_connections, serving, until_released
from tests.support.answers import silent
from tests.support.raw_client import RawClient
from tests.support.waiting import wait_until

LONGER = """
from llmproxy.server import stopping

stopping.FORCED_STEP_S = 5
"""
"""So long may a busy machine take from the one step of a forced stop to the next."""


def test_no_signal_keeps_settlements_from_being_written(tmp_path: Path) -> None:
    with serving(tmp_path) as site, ExitStack() as stack:
        never = threading.Event()
        stack.callback(never.set)
        site.stub.handle = until_released(never)  # type: ignore[assignment]
        users = [site.books.user() for _ in range(20)]
        for _, key in users:
            stack.enter_context(site.running_stream(key))
        assert site.open_holds() == 20

        path = site.proxy.home / "data" / "llmproxy.db"
        foreign = stack.enter_context(closing(sqlite3.connect(path, isolation_level=None)))
        foreign.execute("BEGIN IMMEDIATE")
        site.proxy.send_signal(signal.SIGTERM)
        wait_until(lambda: refuses_connections(site.proxy.port))
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT, signal.SIGTERM) * 3:
            site.proxy.send_signal(number)
            time.sleep(0.1)
        time.sleep(0.5)
        foreign.execute("ROLLBACK")

        assert site.proxy.wait_for_exit() == 0
        assert site.open_holds() == 0
        rows = [row for name, _ in users for row in site.books.rows(name)]
        assert {(row["state"], row["basis"]) for row in rows} == {("settled", "estimate")}
        assert len(rows) == 20


def test_a_forced_stop_is_recorded_and_told_as_what_it_is(tmp_path: Path) -> None:
    with serving(tmp_path) as site:
        never = threading.Event()
        site.stub.handle = until_released(never)  # type: ignore[assignment]
        name, key = site.books.user()
        try:
            with site.running_stream(key) as client:
                site.proxy.send_signal(signal.SIGTERM)
                wait_until(lambda: refuses_connections(site.proxy.port))
                site.proxy.send_signal(signal.SIGTERM)
                body = client.body()
                assert site.proxy.wait_for_exit() == 0
        finally:
            never.set()
        assert b"the proxy was stopped" in body
        (row,) = site.books.rows(name)
        assert row["reason"] == "the proxy was stopped"
        assert "Traceback" not in site.proxy.log.read_text()


def test_what_begins_only_when_all_else_has_been_cut_is_stopped_too(tmp_path: Path) -> None:
    """Its hold has waited for the database meanwhile: it is cancelled, and its row says why."""
    (tmp_path / "sitecustomize.py").write_text(LONGER)  # Python reads it when it starts
    with serving(tmp_path, {"PYTHONPATH": str(tmp_path)}) as site, ExitStack() as stack:
        never = threading.Event()
        stack.callback(never.set)
        site.stub.handle = until_released(never)  # type: ignore[assignment]
        name, key = site.books.user()
        running = stack.enter_context(site.running_stream(key))
        site.stub.handle = silent
        path = site.proxy.home / "data" / "llmproxy.db"
        foreign = stack.enter_context(closing(sqlite3.connect(path, isolation_level=None)))
        foreign.execute("BEGIN IMMEDIATE")
        late = stack.enter_context(RawClient(site.proxy.port))
        late.post(CHAT, json.dumps(chat_body()).encode(), bearer(key))
        for _ in range(3):  # whoever is answered now has come behind it
            assert ask(site.proxy.port, "GET", "/v1/openai/models", b"", bearer(key)).status == 200
        site.proxy.send_signal(signal.SIGTERM)
        wait_until(lambda: refuses_connections(site.proxy.port))
        site.proxy.send_signal(signal.SIGTERM)
        assert b"the proxy was stopped" in running.body()
        assert len(site.stub.requests) == 1
        foreign.execute("ROLLBACK")
        site.stub.wait_for_requests(2)
        assert site.proxy.wait_for_exit() == 0
        rows = site.books.rows(name)
        assert {row["reason"] for row in rows if row["endpoint"] == "chat/completions"} == {
            "the proxy was stopped"
        }
        assert [row["state"] for row in rows if not row["is_stream"]].count("released") == 1
        assert site.open_holds() == 0


def test_a_forced_stop_waits_for_no_client_that_does_not_send_its_body(tmp_path: Path) -> None:
    with serving(tmp_path) as site:
        _, key = site.books.user()
        with RawClient(site.proxy.port) as client:
            head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n"
            client.send(head.encode() + b'content-length: 1000\r\n\r\n{"model"')
            time.sleep(0.2)
            began = time.monotonic()
            site.proxy.send_signal(signal.SIGTERM)
            wait_until(lambda: refuses_connections(site.proxy.port))
            site.proxy.send_signal(signal.SIGTERM)
            assert site.proxy.wait_for_exit() == 0
            assert time.monotonic() - began < 8
