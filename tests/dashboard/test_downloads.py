"""Downloads: what the pages show, whole, under the same filter, for whom it belongs to."""

import asyncio
import csv
import io
import json
import os
import signal
import sqlite3
import weakref
from collections.abc import AsyncIterator
from contextlib import closing
from urllib.parse import urlencode

from llmproxy import accounts, crediting
from llmproxy.dashboard.download_tables import REQUESTS_AT_ONCE
from llmproxy.dashboard.downloads import DOWNLOADS_OF_USER_MAX, _Sending
from tests.dashboard.helpers import Desk, Visitor
from tests.dashboard.rows import add_refused, add_settled
from tests.support.raw_client import RawClient
from tests.support.waiting import wait_until

OLD_MS = 1_700_000_000_000
LARGE_ROWS = 8000
REASON = "It was refused. " * 30


def rows_of(ann: Visitor, name: str, **fields: str) -> list[dict[str, str]]:
    """The rows of a download as CSV, after a look at its headers."""
    answer = ann.get(f"/dashboard/{name}.csv?{urlencode(fields)}")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert f'attachment; filename="llmproxy-{name}-20' in answer.headers["content-disposition"]
    return list(csv.DictReader(io.StringIO(answer.text)))


def lines_of(ann: Visitor, name: str, **fields: str) -> list[dict[str, object]]:
    answer = ann.get(f"/dashboard/{name}.jsonl?{urlencode(fields)}")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/jsonl"
    return [json.loads(line) for line in answer.text.splitlines()]


def test_all_requests_come_once_newest_first_however_many_pages_they_take(desk: Desk) -> None:
    ann, other = desk.signed_in(), desk.signed_in()
    made = add_refused(desk.books, ann.name, 3 * REQUESTS_AT_ONCE + 7, at_ms=OLD_MS)
    add_refused(desk.books, other.name, 20, at_ms=OLD_MS)
    rows = rows_of(ann, "requests")
    assert [row["id"] for row in rows] == made[::-1]
    assert {row["user"] for row in rows} == {ann.name}
    assert [line["id"] for line in lines_of(ann, "requests")] == made[::-1]


def test_the_columns_are_those_of_usage_export(desk: Desk) -> None:
    ann = desk.signed_in()
    request_id = add_settled(desk.books, ann.name, at_ms=OLD_MS)
    exported = desk.run("usage", "export", "--user", ann.name)
    assert ann.get("/dashboard/requests.csv").text == exported
    (row,) = rows_of(ann, "requests")
    assert (row["id"], row["usage_cache_read"], row["cost_usd"]) == (request_id, "800", "0.0075")
    as_json = desk.run("usage", "export", "--user", ann.name, "--format", "jsonl")
    assert ann.get("/dashboard/requests.jsonl").text == as_json


def test_the_filter_of_the_page_holds(desk: Desk) -> None:
    ann = desk.signed_in()
    settled = add_settled(desk.books, ann.name, at_ms=OLD_MS)
    refused = add_refused(desk.books, ann.name, 2, at_ms=OLD_MS, apart_ms=3 * 86_400_000)
    for fields, wanted in [
        ({"state": "settled"}, [settled]),
        ({"state": "refused"}, refused[::-1]),
        ({"model": "openai/gpt-old"}, [settled]),
        ({"since": "2023-11-16"}, [refused[1]]),
        ({"key": "nobody"}, []),
    ]:
        assert [row["id"] for row in rows_of(ann, "requests", **fields)] == wanted, fields
    for query in ("state=paid", "since=soon", "before=1", "model=%ff"):
        assert ann.get(f"/dashboard/requests.csv?{query}").status_code == 422


def test_no_cell_is_a_formula_and_no_sum_loses_its_sign(desk: Desk) -> None:
    ann = desk.signed_in()
    add_refused(desk.books, ann.name, 1, at_ms=OLD_MS, model="=1+1", reason="@SUM(A1)\x1b[2J")
    (row,) = rows_of(ann, "requests")
    assert (row["model"], row["reason"]) == ("'=1+1", "'@SUM(A1)[2J")
    (line,) = lines_of(ann, "requests")
    assert line["model"] == "=1+1"
    with desk.books.write() as tx:
        wallet_id = accounts.find_user(tx, ann.name).wallet_id
        for amount, reason in ((-1_500_000_000, "-2+3"), (3, "+1")):
            crediting.adjust(tx, wallet_id, amount, actor="who", reason=reason, now_ms=OLD_MS)
    rows = rows_of(ann, "credit")
    assert [(row["amount_usd"], row["reason"]) for row in rows] == [
        ("0.000000003", "'+1"),
        ("-1.50", "'-2+3"),
        ("5.00", ""),
    ]
    assert "who" not in ann.get("/dashboard/credit.jsonl").text
    assert [line["kind"] for line in lines_of(ann, "credit")] == ["adjust", "adjust", "credit"]


def test_models_have_the_prices_that_the_page_shows(desk: Desk) -> None:
    ann = desk.sign_in(*desk.books.user(multiplier_micro=1_500_000))
    (row,) = rows_of(ann, "models", search="gpt-4o-2024-08-06")
    assert (row["id"], row["in_price"], row["cache_read"], row["out_price"]) == (
        *("gpt-4o", "3.75", "1.875", "15.00"),
    )
    assert "gpt-4o-2024-08-06" in row["aliases"].split()
    assert row["available"] == "true"
    assert {line["provider"] for line in lines_of(ann, "models", provider="groq")} == {"groq"}
    assert ann.get("/dashboard/models.csv?page=x").status_code == 422


def test_nobody_downloads_without_a_session(desk: Desk) -> None:
    answer = desk.visitor().get("/dashboard/requests.csv")
    assert (answer.status_code, answer.headers["location"]) == (303, "/dashboard/sign-in")


def begin(desk: Desk, ann: Visitor) -> RawClient:
    """Ask for a large download and take nothing of it yet."""
    client = RawClient(desk.site.proxy.port, timeout_s=20)
    cookie = f"llmproxy-session={ann.cookies['llmproxy-session']}"
    head = f"GET /dashboard/requests.csv HTTP/1.1\r\nhost: x\r\ncookie: {cookie}\r\n\r\n"
    client.send(head.encode())
    return client


def test_only_a_few_are_sent_at_once_and_a_client_that_leaves_makes_room(desk: Desk) -> None:
    ann, other = desk.signed_in(), desk.signed_in()
    add_refused(desk.books, ann.name, LARGE_ROWS, at_ms=OLD_MS, reason=REASON)
    clients = [begin(desk, ann) for _ in range(DOWNLOADS_OF_USER_MAX)]
    assert [client.recv_head().status for client in clients] == [200] * DOWNLOADS_OF_USER_MAX
    refused = ann.get("/dashboard/credit.csv")
    assert (refused.status_code, "Try again in a moment." in refused.text) == (503, True)
    assert other.get("/dashboard/credit.csv").status_code == 200
    assert ann.get("/dashboard").status_code == 200
    clients[0].close()
    wait_until(lambda: ann.get("/dashboard/credit.csv").status_code == 200)
    # The other one still runs, and is whole in the end.
    text = clients[1].body().decode()
    assert clients[1].clean_end
    assert len(text.splitlines()) == LARGE_ROWS + 1
    clients[1].close()


def test_signing_out_breaks_a_download_off_so_that_its_client_sees_it(desk: Desk) -> None:
    ann = desk.signed_in()
    add_refused(desk.books, ann.name, LARGE_ROWS, at_ms=OLD_MS, reason=REASON)
    with begin(desk, ann) as client:
        assert client.recv_head().status == 200
        assert ann.submit("/dashboard/sign-out").status_code == 303
        text = client.body().decode()
        assert not client.clean_end
    assert 0 < len(text.splitlines()) < LARGE_ROWS
    log = desk.site.proxy.log.read_text()
    assert "a download was broken off: NotSignedInError()" in log
    assert "without completing response" not in log


def test_a_proxy_that_is_stopped_waits_for_no_download(plain_desk: Desk) -> None:
    ann, proxy = plain_desk.signed_in(), plain_desk.site.proxy
    add_refused(plain_desk.books, ann.name, LARGE_ROWS, at_ms=OLD_MS, reason=REASON)
    with begin(plain_desk, ann) as client:
        assert client.recv_head().status == 200
        os.kill(proxy.pid, signal.SIGTERM)
        client.body()
        assert not client.clean_end
        wait_until(lambda: proxy.exit_code == 0)


def test_a_client_that_takes_nothing_is_let_go() -> None:
    ended: list[str] = []
    sent: list[dict[str, object]] = []

    is_cut = asyncio.Event()

    class Connection:
        def abort(self) -> None:
            ended.append("connection")
            is_cut.set()

    async def pieces() -> AsyncIterator[bytes]:
        while True:
            yield b"row\n"

    async def send(message: dict[str, object]) -> None:
        sent.append(message)
        if len(sent) > 3:
            await asyncio.Event().wait()

    async def receive() -> object:
        await is_cut.wait()
        return {"type": "http.disconnect"}

    headers = {"content-type": "text/csv"}
    sending = _Sending(pieces(), lambda: ended.append("download"), headers, stall_s=0.01)
    connection = Connection()
    scope = {"llmproxy.cycle": weakref.ref(connection)}
    asyncio.run(sending(scope, receive, send))  # type: ignore[arg-type]
    assert ended == ["connection", "download"]
    assert all(message["more_body"] for message in sent[1:])


def test_a_slow_client_holds_no_transaction_open(desk: Desk) -> None:
    ann = desk.signed_in()
    add_refused(desk.books, ann.name, LARGE_ROWS, at_ms=OLD_MS, reason=REASON)
    path = desk.site.proxy.home / "data" / "llmproxy.db"

    def can_empty_the_log() -> bool:
        with closing(sqlite3.connect(path)) as database:
            is_busy: int = database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        return not is_busy

    with begin(desk, ann) as client:
        assert client.recv_head().status == 200
        assert desk.ask(ann.api_key) == 200
        desk.books.settled_wallet(ann.name)
        wait_until(can_empty_the_log)
        assert desk.ask(ann.api_key) == 200
