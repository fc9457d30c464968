"""The benchmarks measure what they say, and notice what they should: short runs, for real."""

import asyncio
import json
import sqlite3
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from benchmarks import books, load, rows
from benchmarks.answers import STAMP_MARK, stamped, stream_answers
from benchmarks.connection import Stamps
from benchmarks.figures import added_us, calm_us, quantiles_us
from benchmarks.load import Order
from benchmarks.measured import measured
from benchmarks.peers import Programs, find
from benchmarks.processes import load_generator, running_rig
from benchmarks.ratio import Pair, forwarder, ratio, regressions
from benchmarks.scenarios import Shape
from benchmarks.site import Home
from tests.support import answers
from tests.support.stub_provider import Out, SeenRequest, StubProvider


def run_module(name: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"benchmarks.{name}" if name else "benchmarks", *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_short_run_measures_and_its_ledger_is_the_providers_count() -> None:
    chosen = ("--only", "plain-32", "gaps-100", "402-storm", "open-plain", "tls-32", "help")
    done = run_module("", *chosen, "--seconds=0.3", "--peers=none", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["problems"] == []
    figures = {(row["scenario"], row["target"]): row for row in report["rows"]}
    assert ("402-storm", "direct") not in figures
    for row in figures.values():
        assert row["requests"] > 0
        assert row["cpu_us"] > 0
        assert row["failed"] == 0
    through = [row for name, row in figures.items() if name[1] == "llmproxy"]
    metered = [row["requests_seen"] for row in through if row["scenario"] != "402-storm"]
    assert sum(each["answers"] for each in report["ledgers"]) == sum(metered)
    assert report["ledgers"][0]["charged_nanousd"] > 0
    assert figures["gaps-100", "llmproxy"]["delay_us"]["p50"] > 0
    assert figures["gaps-100", "llmproxy"]["cpu_us_per_chunk"] > 0
    assert [row["scenario"] for row in report["added"]] == ["plain-32", "gaps-100", "open-plain"]
    assert report["help"]["cpu_ms"] > 0


def test_a_filled_ledger_passes_and_a_nano_dollar_more_does_not(tmp_path: Path) -> None:
    ledgers: list[Any] = []
    with running_rig() as rig:
        home = Home(tmp_path / "home")
        home.set_up(rig.provider.base_url)
        with measured(home, rig, ledgers) as server:
            server.ask(Shape(connections=1), 1)
        rows.fill(home.database, 250, lambda _done, _of: None)
        with measured(home, rig, ledgers) as server:
            server.ask(Shape(connections=2), 5)
    assert [(ledger["answers"], ledger["problems"]) for ledger in ledgers] == [(1, []), (5, [])]
    had = books.read_totals(home.database)
    assert (had.settled, had.others) == (256, 0)
    money, number = books.problems(home, had + books.Totals(0, 1, 0), 257)
    assert str(had.charged_nanousd + 1) in money
    assert "257 answers were received" in number
    with sqlite3.connect(home.database) as db:
        db.execute("UPDATE wallets SET balance_nanousd = balance_nanousd + 1 WHERE id = 1")
    db.close()
    assert len(books.problems(home, had, 256)) == 2  # by SQL, and by `ledger verify`


def test_costs_are_worked_out_to_the_nano_dollar() -> None:
    # 24 × 0.15 + 9 × 0.60 = 9 µUSD, × 1.07; 24 × 0.02 = 0.48 µUSD, × 1.07 = 513.6 nano-USD.
    assert books.cost_nanousd("chat", 0) == 9_630
    assert books.cost_nanousd("embeddings", 0) == 514
    before = {"chat": [3] + 7 * [0], "embeddings": 8 * [0]}
    after = {"chat": [5] + 7 * [0], "embeddings": [1] + 7 * [0]}
    assert books.given_between(before, after) == books.Totals(3, 2 * 9_630 + 514, 0)


def test_an_open_loop_counts_from_when_a_request_was_due() -> None:
    async def late_at_first(request: SeenRequest, out: Out) -> None:
        if len(stub.requests) == 1:
            await asyncio.sleep(0.2)
        await answers.plain(answers.openai_chat())(request, out)

    # Every 5 ms one is due; the only connection is busy for 200 ms.
    shape = Shape(connections=1, rate_per_s=200)
    with StubProvider() as stub, load_generator() as loads:
        stub.handle = late_at_first
        port = int(stub.url.rpartition(":")[2])
        result, _ = loads.run(Order(port, "/v1/chat/completions", {}, shape, 0, 20), 1)
    assert (result.answers, result.failures) == (20, {})
    median = result.latency_us["p50"]
    assert median is not None
    assert median >= 100_000


def test_what_is_not_answered_has_failed_and_the_rest_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def first_alone(request: SeenRequest, out: Out) -> None:
        if len(stub.requests) == 1:
            await answers.plain(answers.openai_chat())(request, out)
        else:
            await asyncio.sleep(20)

    monkeypatch.setattr(load, "GRACE_S", 0.5)
    with StubProvider() as stub:
        stub.handle = first_alone
        port = int(stub.url.rpartition(":")[2])
        order = Order(port, "/v1/chat/completions", {}, Shape(connections=1), 0, 2)
        result = asyncio.run(load.Run(order).finish())
    assert (result.answers, result.failures) == (1, {"not in time": 1})


@pytest.mark.parametrize("is_stream", [False, True])
def test_the_forwarder_forwards(is_stream: bool) -> None:
    events = answers.openai_chat_stream()
    with StubProvider() as stub, forwarder(int(stub.url.rpartition(":")[2])) as target:
        plain = answers.openai_chat()
        stub.handle = answers.stream(events, gap_s=0.01) if is_stream else answers.plain(plain)
        url = f"http://127.0.0.1:{target.port}/v1/chat/completions"
        for _ in range(3):
            request = urllib.request.Request(url, data=b'{"a": 1}', headers={"x-mark": "kept"})
            with urllib.request.urlopen(request, timeout=10) as answer:
                assert answer.read() == (b"".join(events) if is_stream else plain)
        assert [seen.body for seen in stub.requests] == 3 * [b'{"a": 1}']
        assert stub.requests[0].header("x-mark") == b"kept"
        assert stub.connections_opened == 1


def test_a_ratio_that_grew_by_more_than_a_quarter_is_a_regression() -> None:
    stored = {"plain": 4.0, "stream": 8.0}
    assert regressions({"plain": 5.0, "stream": 10.0}, stored) == []
    assert regressions({"plain": 1.0, "stream": 1.0}, stored) == []
    [told] = regressions({"plain": 5.01, "stream": 8.0}, stored)
    assert told.startswith("plain: 5.01 times")
    [told] = regressions({"plain": 4.0, "stream": 10.1}, stored)
    assert told.startswith("stream: 10.10 times")
    [told] = regressions({"plain": 4.0}, {})
    assert "no stored ratio" in told


def test_a_ratio_is_not_moved_by_single_bad_runs() -> None:
    good = [Pair(400, 100), Pair(420, 100), Pair(380, 100)]
    assert ratio(good) == 4
    assert ratio([*good, Pair(4000, 100), Pair(400, 1000)]) == 4


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_the_ratio_check_fails_against_a_smaller_stored_figure(tmp_path: Path) -> None:
    stored = tmp_path / "stored.json"
    stored.write_text('{"plain": 0.5, "stream": 0.5}')
    done = run_module("ratio", "--rounds=1", f"--stored={stored}")
    assert done.returncode == 1, done.stdout
    assert done.stderr.count("times the CPU of bare forwarding, stored is 0.50") == 2
    done = run_module("ratio", "--rounds=1", f"--stored={stored}", "--store", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(stored.read_text()) == json.loads(done.stdout)["ratio"]


def test_percentiles_are_given_where_enough_samples_lie_above() -> None:
    samples = [number / 1e6 for number in range(1000)]
    assert quantiles_us(samples) == {"p50": 500, "p90": 900, "p99": 990, "p99.9": None}
    few = quantiles_us(samples[:9])
    assert set(few.values()) == {None}
    assert added_us(quantiles_us(samples), few)["p50"] is None
    assert added_us({"p50": 30}, {"p50": 12}) == {"p50": 18}


def test_stamps_are_found_however_a_stream_is_cut() -> None:
    [_, *events] = stream_answers(with_usage=False, is_stamped=True)[0]
    sent = b"".join(stamped(event, time.monotonic_ns()) for event in events)
    assert sent.count(STAMP_MARK) == 18
    for size in (1, 7, 22, 100, 5000):
        stamps = Stamps()
        pieces = [sent[at : at + size] for at in range(0, len(sent), size)]
        delays = [delay for piece in pieces for delay in stamps.delays_s(piece)]
        assert len(delays) == 18, size
        assert all(0 <= delay < 60 for delay in delays)


def test_a_peer_that_is_not_installed_is_skipped_with_a_word(tmp_path: Path) -> None:
    programs = Programs(nginx="/nowhere/nginx", portkey=str(tmp_path))
    found = find(programs, frozenset({"nginx", "portkey"}))
    assert found.starts == {}
    assert found.missing == {
        "nginx": "not found at /nowhere/nginx",
        "portkey": f"not found at {tmp_path}",
    }


def test_options_that_mean_nothing_are_refused() -> None:
    done = run_module("", "--only", "fast")
    assert done.returncode == 2
    assert "invalid choice: 'fast'" in done.stderr
    done = run_module("", "--seconds", "0")
    assert done.returncode == 2
    assert "must be above zero" in done.stderr
    done = run_module("", "--peers", "apache")
    assert done.returncode == 2
    assert "no such peer: apache" in done.stderr


def test_the_calm_part_of_a_run_is_told_by_its_slices() -> None:
    # 100 answers a second at 1 ms each; from second 4 on the machine is busy, and each costs 3 ms.
    progress = [(second / 10, second * 10) for second in range(101)]
    used = [
        (second / 10, min(second, 40) * 0.01 + max(0, second - 40) * 0.03) for second in range(101)
    ]
    assert calm_us(used, progress) == pytest.approx(1000, abs=1)
    assert calm_us(used[40:], progress) == pytest.approx(3000, abs=1)
    assert calm_us(used[:15], progress) is None  # too short
    assert calm_us([], progress) is None
