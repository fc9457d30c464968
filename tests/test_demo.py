"""`llmproxy demo` as a person runs it: a process of its own, an empty HOME, an empty TMPDIR."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import ROUND_CEILING, Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from llmproxy.demo.client import Ask, Got
from llmproxy.demo.run import _compare  # the guard itself is what is tested
from llmproxy.demo.scenes import expected_cost_usd
from llmproxy.demo.stage import DemoError
from llmproxy.reports import Receipt, Request

DEMO = [sys.executable, "-m", "llmproxy", "demo"]
WITHIN_S = 30
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def heeded_signals() -> Iterator[None]:
    """Signals that are ignored here, as SIGHUP is under nohup, have their default in a child.

    An ignored signal is inherited; one that is caught is not.
    """
    ignored = [each for each in SIGNALS if signal.getsignal(each) == signal.SIG_IGN]
    for each in ignored:
        signal.signal(each, lambda *_: None)
    yield
    for each in ignored:
        signal.signal(each, signal.SIG_IGN)


class Surroundings:
    """An empty home and an empty folder for temporary files; both must be empty afterwards."""

    def __init__(self, folder: Path) -> None:
        self.home, self.temporary, self.own_home = (
            folder / name for name in ("home", "tmp", "llmproxy-home")
        )
        self.home.mkdir()
        self.temporary.mkdir()
        self.environ = {
            **{name: os.environ[name] for name in os.environ if not name.startswith("XDG_")},
            "HOME": str(self.home),
            "TMPDIR": str(self.temporary),
            # None of these may have any say in the demo.
            "LLMPROXY_HOME": str(self.own_home),
            "LLMPROXY_PORT": "1",
            "LLMPROXY_MASTER_KEY": "no key at all",
            "LLMPROXY_CATALOG_FILE": "/nowhere",
        }

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*DEMO, *arguments],
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=WITHIN_S,
            check=False,
        )

    def assert_untouched(self) -> None:
        assert list(self.home.iterdir()) == []
        assert list(self.temporary.iterdir()) == []
        assert not self.own_home.exists()


@pytest.fixture
def surroundings(tmp_path: Path) -> Iterator[Surroundings]:
    made = Surroundings(tmp_path)
    yield made
    made.assert_untouched()


def test_in_a_pipe_it_prints_plain_text(surroundings: Surroundings) -> None:
    ran = surroundings.run()
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "\x1b" not in ran.stdout
    assert max(len(line) for line in ran.stdout.splitlines()) <= 100
    for wanted in (
        "POST /v1/openai/chat/completions",
        "POST /v1/anthropic/messages",
        "× 2.50 / 1M",
        "64 of them reasoning",
        "cache write",
        "cache read",
        "sum × 1.2 user × 1 model",
        "402 insufficient_credit",
        "400 unknown_model_pricing",
        "Nearest: gpt-4o-mini",
        "The ledger is right",
    ):
        assert wanted in ran.stdout


def test_its_json_is_one_document_whose_sums_are_right(surroundings: Surroundings) -> None:
    ran = surroundings.run("--json")
    assert (ran.returncode, ran.stderr) == (0, "")
    shown = json.loads(ran.stdout)
    assert shown["ok"]
    assert "api_key" not in shown
    requests = shown["requests"]
    assert {(each["provider"], each["stream"]) for each in requests} == {
        *(("openai", False), ("openai", True), ("anthropic", False), ("anthropic", True))
    }
    balance = Decimal(shown["user"]["credit_usd"])
    for each in requests:
        rated = sum(line["tokens"] * Decimal(line["rate_usd_per_mtok"]) for line in each["receipt"])
        cost = rated / 10**6 * Decimal("1.2")
        assert Decimal(each["cost_usd"]) == cost.quantize(Decimal("1e-9"), ROUND_CEILING)
        assert Decimal(each["balance_before_usd"]) == balance
        balance -= Decimal(each["cost_usd"])
        assert Decimal(each["balance_after_usd"]) == balance
    assert Decimal(shown["user"]["balance_usd"]) == balance
    assert [(each["status"], each["error"]["code"]) for each in shown["refusals"]] == [
        (402, "insufficient_credit"),
        (400, "unknown_model_pricing"),
    ]
    assert shown["ledger"]["ok"]


@contextmanager
def kept(surroundings: Surroundings, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [*DEMO, "--keep", *arguments],
        env=surroundings.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill() if process.poll() is None else None


def read_document(process: subprocess.Popen[str]) -> Any:  # noqa: ANN401 - any JSON value
    assert process.stdout is not None
    text = ""
    for line in process.stdout:
        text += line
        if line == "}\n":
            return json.loads(text)
    raise AssertionError(text)


@pytest.mark.parametrize("number", SIGNALS)
def test_kept_it_serves_until_a_signal_and_leaves_nothing(
    surroundings: Surroundings, number: signal.Signals
) -> None:
    with kept(surroundings, "--json") as process:
        shown = read_document(process)
        answer = ask(f"{shown['base_url']}/v1/openai/chat/completions", shown["api_key"])
        assert answer["choices"][0]["message"]["content"].startswith("Hello!")
        assert Path(shown["home"]).parent == surroundings.temporary
        assert shown["sign_in_link"].startswith(f"{shown['base_url']}/dashboard/sign-in/")
        with httpx.Client(headers={"sec-fetch-site": "same-origin"}) as browser:
            signed_in = browser.post(shown["sign_in_link"], follow_redirects=True)
            assert "Overview" in signed_in.text
            assert browser.get(f"{shown['base_url']}/dashboard/admin").status_code == 200
        process.send_signal(number)
        _, said = process.communicate(timeout=WITHIN_S)
        assert process.returncode == 0
        assert said == "Stopped; nothing of it is left.\n"
    with pytest.raises(OSError, match="refused"):
        ask(f"{shown['base_url']}/v1/openai/chat/completions", shown["api_key"])


def ask(url: str, key: str) -> Any:  # noqa: ANN401 - any JSON value
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}]}
    request = urllib.request.Request(url, json.dumps(body).encode())
    request.add_header("authorization", f"Bearer {key}")
    with urllib.request.urlopen(request, timeout=WITHIN_S) as response:
        return json.load(response)


def test_the_curl_line_that_it_prints_works_as_it_is(surroundings: Surroundings) -> None:
    with kept(surroundings) as process:
        assert process.stdout is not None
        lines: list[str] = []
        for line in process.stdout:
            if line.startswith("curl "):
                lines.append(line)
            elif lines:
                lines.append(line)
                if not line.endswith("\\\n"):
                    break
        # As pasted into a shell; `printf` stands for curl where there is none.
        command = "".join(lines)
        shown = subprocess.run(
            ["sh", "-c", command.replace("curl", "printf '%s\\n'", 1)],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
        url, key = shown[0], shown[2].removeprefix("Authorization: Bearer ")
        assert json.loads(shown[-1])["model"] == "gpt-4o"
        assert "choices" in ask(url, key)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=WITHIN_S)
        assert process.returncode == 0


def test_interrupted_it_ends_with_130_and_leaves_nothing(surroundings: Surroundings) -> None:
    process = subprocess.Popen(
        DEMO,
        env=surroundings.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("llmproxy demo")
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=WITHIN_S)
    assert process.returncode == 130
    assert "Traceback" not in said


def test_a_reader_that_leaves_ends_it_without_a_traceback(surroundings: Surroundings) -> None:
    ran = subprocess.run(
        ["sh", "-c", f"{' '.join(DEMO)} | head -n 2"],
        env=surroundings.environ,
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=True,
    )
    assert "Traceback" not in ran.stderr


def test_it_says_what_is_wrong_when_it_cannot_begin(surroundings: Surroundings) -> None:
    ran = subprocess.run(
        ["sh", "-c", f"ulimit -f 0; {' '.join(DEMO)}"],  # no file can be written
        env=surroundings.environ,
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
    assert ran.returncode not in {0, 130}
    assert ran.stderr.startswith("Error: ")
    assert "Traceback" not in ran.stderr


ASK = Ask(title="it", path="/v1/openai/chat/completions", model="gpt-4o", prompt="Hello")


def test_its_own_calculation_rounds_up_to_a_nano_dollar() -> None:
    # 1 × 2.50 + 1 × 10.00 = 12.50 per million, × 1.0001
    assert expected_cost_usd(ASK, {"input": 1, "output": 1}, "1.0001") == Decimal("0.000012502")


def test_a_cost_that_differs_is_not_let_pass() -> None:
    request = Request(
        id=bytes(16),
        user="ada",
        api_key="laptop",
        provider="openai",
        endpoint="chat/completions",
        model="gpt-4o",
        created_at_ms=0,
        state="settled",
        basis="usage",
        hold_nanousd=10,
        cost_nanousd=5,
        charged_nanousd=5,
        shortfall_nanousd=0,
    )
    receipt = Receipt(request, (), None, None, None, None, None, is_pruned=False)
    got = Got(200, "req", "0.000000005")
    right = Decimal("0.000000005")
    _compare(ASK, got, receipt, spent_nanousd=5, expected=right)
    with pytest.raises(DemoError, match="own calculation"):
        _compare(ASK, got, receipt, spent_nanousd=5, expected=right * 2)
    with pytest.raises(DemoError, match="balance"):
        _compare(ASK, got, receipt, spent_nanousd=4, expected=right)
    told = Got(200, "req", "0.000000006")
    with pytest.raises(DemoError, match="header"):
        _compare(ASK, told, receipt, spent_nanousd=5, expected=right)
