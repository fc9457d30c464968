"""Plays `llmproxy demo`: requests of every kind through a real proxy, each receipt, each refusal.

What is shown is read back from the database and held against what the client saw and against a
calculation of the demo's own; any difference ends it with an error.
"""

import http.client
import json
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from decimal import Decimal
from types import FrameType
from typing import Any

import msgspec
from rich.console import Console

from llmproxy import __version__, accounts, ledger_check, reports
from llmproxy.clock import Clock, parse_request_id
from llmproxy.demo.client import Ask, Got, send
from llmproxy.demo.scenes import ANSWERED, TOO_DEAR, UNKNOWN, expected_cost_usd
from llmproxy.demo.screen import Line, Screen, make_console
from llmproxy.demo.stage import USER, USER_MULTIPLIER, DemoError, Stage
from llmproxy.errors import NotFoundError
from llmproxy.money import format_multiplier, format_rate, format_usd
from llmproxy.reports import Receipt

SETTLES_WITHIN_S = 5.0
POLL_S = 0.01
CLASS_NAMES = {
    "cache_read": "cache read",
    "cache_write_5m": "cache write",
    "cache_write_1h": "cache write, 1 h",
}


def run_demo(*, keep: bool, as_json: bool, console: Console | None = None) -> int:
    """Play the demo; return the exit code.

    Args:
        keep: leave it running afterwards, until SIGINT, SIGTERM or SIGHUP.
        as_json: print one JSON document and nothing else.
        console: where to show it; by default stdout.

    Raises:
        DemoError: something failed, or was not as it must be.
    """
    screen = Screen(console or make_console(is_quiet=as_json))
    with _stoppable():
        try:
            with Stage() as stage:
                document = _Play(stage, screen).all()
                # Whoever reads the document may end the demo at once: that is its good end.
                with suppress(KeyboardInterrupt) if keep else nullcontext():
                    # Of one that is about to end there is no use to be made.
                    access = _access(stage) if keep else {}
                    if as_json:
                        print(json.dumps(document | access, indent=2), flush=True)
                    if keep:
                        _invite(stage, screen, access["sign_in_link"])
                        stage.wait()
        except (OSError, http.client.HTTPException, ValueError, LookupError) as error:
            msg = f"The demo failed: {type(error).__name__}: {error}"
            raise DemoError(msg) from error
    if keep:
        with suppress(OSError):  # its terminal may be gone
            print("Stopped; nothing of it is left.", file=sys.stderr)
    else:
        screen.gap()
        screen.paragraph("All of it is gone again. To try it by hand: llmproxy demo --keep")
    return 0


@contextmanager
def _stoppable() -> Iterator[None]:
    """Let the usual signals end the demo in order: all raise KeyboardInterrupt."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Play:
    """The scenes, one after another; `all` returns what `--json` prints."""

    def __init__(self, stage: Stage, screen: Screen) -> None:
        self._stage = stage
        self._screen = screen
        self._started_s = Clock().monotonic_s()

    def all(self) -> dict[str, Any]:
        stage, screen = self._stage, self._screen
        screen.title("llmproxy demo", f"{__version__}, all of it on this machine")
        user = self._user()
        screen.field("provider", stage.provider_url, "built in; speaks every dialect")
        screen.field("proxy", stage.proxy_url, "in a temporary home; nothing of yours is touched")
        balance = format_usd(user.balance_nanousd)
        screen.field("user", user.name, f"{balance} USD of credit, pays every price × 1.2")
        requests = [self._answered(ask) for ask in ANSWERED]
        too_dear, lowered = self._too_dear()
        unknown = self._refused(UNKNOWN, 400, "unknown_model_pricing")
        ledger = self._check_ledger()
        return {
            "ok": True,
            "version": __version__,
            "user": {
                "name": user.name,
                "rate_multiplier": USER_MULTIPLIER,
                "credit_usd": balance,
                "balance_usd": format_usd(self._user().balance_nanousd),
            },
            "requests": [*requests, lowered],
            "refusals": [too_dear, unknown],
            "ledger": ledger,
            "duration_ms": round((Clock().monotonic_s() - self._started_s) * 1000),
        }

    def _user(self) -> accounts.User:
        with self._stage.database.read() as tx:
            return accounts.find_user(tx, USER)

    def _answered(self, ask: Ask) -> dict[str, Any]:
        self._screen.heading(ask.title, ask.model, ask.path)
        self._screen.field("you", ask.prompt)
        return self._ask(ask)

    def _ask(self, ask: Ask) -> dict[str, Any]:
        """Send a request that must succeed; show its answer, receipt and the balance after it."""
        before = self._user().balance_nanousd
        words = self._screen.answer_begins()
        got = send(self._stage.port, self._stage.api_key, ask, words.add)
        words.end()
        if got.status != 200 or got.error or not got.text:
            msg = f"{ask.path} was answered with {got.status} {got.error or got.text}"
            raise self._stage.failure(msg)
        receipt = self._receipt(got)
        after = self._user().balance_nanousd
        expected = expected_cost_usd(ask, got.tokens(ask), USER_MULTIPLIER)
        _compare(ask, got, receipt, spent_nanousd=before - after, expected=expected)
        self._screen.gap()
        self._screen.receipt(_receipt_lines(receipt))
        held = format_usd(receipt.request.hold_nanousd)
        self._screen.note(
            f"held {held} before it was sent; balance {format_usd(before)} → {format_usd(after)}"
        )
        return _request_json(ask, got, receipt, before, after)

    def _receipt(self, got: Got) -> Receipt:
        """Return the receipt of an ended request, waiting for the moment until it is committed."""
        request_id = parse_request_id(got.request_id)
        clock = Clock()
        deadline_s = clock.monotonic_s() + SETTLES_WITHIN_S
        while request_id is not None and clock.monotonic_s() < deadline_s:
            with suppress(NotFoundError), self._stage.database.read() as tx:
                receipt = reports.find_receipt(tx, request_id)
                if receipt.request.state != "open":
                    return receipt
            threading.Event().wait(POLL_S)
        msg = f"Request {got.request_id or 'without an id'} was not settled"
        raise self._stage.failure(msg)

    def _too_dear(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Ask for more than the credit pays for, then for as much as the refusal says."""
        refused = self._refused(TOO_DEAR, 402, "insufficient_credit")
        fitting = refused["error"]["max_tokens_affordable"]
        self._screen.gap()
        self._screen.note(f"The same again with max_tokens {fitting}, as it says:")
        ask = msgspec.structs.replace(
            TOO_DEAR,
            title="Lowered to what fits",
            options={**TOO_DEAR.options, "max_tokens": fitting},
        )
        return refused, self._ask(ask)

    def _refused(self, ask: Ask, status: int, code: str) -> dict[str, Any]:
        """Send a request that must be refused, and cost nothing."""
        self._screen.heading(ask.title, ask.model, ask.path)
        if "max_tokens" in ask.options:
            self._screen.field("you", ask.prompt, f"max_tokens {ask.options['max_tokens']}")
        before = self._user().balance_nanousd
        got = send(self._stage.port, self._stage.api_key, ask, lambda _text: None)
        if (got.status, got.error.get("code")) != (status, code):
            msg = f"{ask.title}: {got.status} {got.error} instead of {status} {code}"
            raise self._stage.failure(msg)
        if self._user().balance_nanousd != before:
            msg = f"{ask.title}: a refusal has changed the balance"
            raise self._stage.failure(msg)
        self._screen.refusal(status, code, got.error["message"])
        return {
            "title": ask.title,
            "path": ask.path,
            "model": ask.model,
            "status": got.status,
            "error": got.error,
        }

    def _check_ledger(self) -> dict[str, Any]:
        self._screen.heading("The books", "")
        with self._stage.database.read() as tx:
            report = ledger_check.verify(tx)
        if not report.is_ok:
            problems = "; ".join(f"{each.row}: {each.message}" for each in report.problems)
            msg = f"The ledger is wrong: {problems}"
            raise self._stage.failure(msg)
        counts = report.checked
        shown = ", ".join(f"{counts[what]} {what}" for what in ("holds", "transfers", "requests"))
        self._screen.good(
            f"The ledger is right: {shown}; every balance derived and every cost priced again."
        )
        left = format_usd(self._user().balance_nanousd)
        self._screen.note(f"{USER} has {left} USD left.")
        return report.as_json()


def _compare(
    ask: Ask, got: Got, receipt: Receipt, *, spent_nanousd: int, expected: Decimal
) -> None:
    """Hold the ledger's cost against the demo's own, the balance and what the client was told.

    Raises:
        DemoError: any of them differs.
    """
    request = receipt.request
    cost = format_usd(request.cost_nanousd)
    seen = {
        "by the demo's own calculation": Decimal(cost) == expected,
        "by the balance": spent_nanousd == request.cost_nanousd,
        "by the answer's header": got.cost_usd in {None, cost},
        "by its own receipt": receipt.agrees and request.basis == "usage",
        "in its charge": request.charged_nanousd == request.cost_nanousd,
    }
    for how, is_same in seen.items():
        if not is_same:
            msg = f"{ask.title}: {cost} USD in the ledger is not the cost {how} ({expected} USD)."
            raise DemoError(msg)


def _exact_usd(tokens: int, rate: int) -> str:
    """Return tokens × rate per million as an exact decimal of USD."""
    exact = Decimal(tokens) * Decimal(format_rate(rate)) / 1_000_000
    whole, _, decimals = f"{exact:f}".partition(".")
    return f"{whole}.{decimals.rstrip('0').ljust(2, '0')}"


def _receipt_lines(receipt: Receipt) -> list[Line]:
    """Return a receipt as it is shown: each class, then the multipliers and the cost."""
    reasoning = (receipt.request.usage_totals() or {}).get("reasoning", 0)
    lines = [
        Line(
            CLASS_NAMES.get(line.usage_class, line.usage_class),
            f"{line.quantity:,}",
            f"× {format_rate(line.rate)} / 1M",
            _exact_usd(line.quantity, line.rate),
            f"{reasoning} of them reasoning" if line.usage_class == "output" and reasoning else "",
        )
        for line in receipt.lines
    ]
    user = format_multiplier(receipt.user_multiplier_micro or 0)
    model = format_multiplier(receipt.model_multiplier_micro or 0)
    cost = format_usd(receipt.request.cost_nanousd)
    return [*lines, Line(f"sum × {user} user × {model} model", "", "", cost, "USD", "bold green")]


def _request_json(ask: Ask, got: Got, receipt: Receipt, before: int, after: int) -> dict[str, Any]:
    return {
        "title": ask.title,
        "path": ask.path,
        "prompt": ask.prompt,
        "text": got.text,
        **receipt.request.as_json(),
        "receipt": [
            {
                "class": line.usage_class,
                "tokens": line.quantity,
                "rate_usd_per_mtok": format_rate(line.rate),
                "amount_usd": _exact_usd(line.quantity, line.rate),
            }
            for line in receipt.lines
        ],
        "user_multiplier": format_multiplier(receipt.user_multiplier_micro or 0),
        "model_multiplier": format_multiplier(receipt.model_multiplier_micro or 0),
        "balance_before_usd": format_usd(before),
        "balance_after_usd": format_usd(after),
    }


def _access(stage: Stage) -> dict[str, str]:
    """Return how to use a demo that stays."""
    return {
        "base_url": stage.proxy_url,
        "api_key": stage.api_key,
        "sign_in_link": stage.sign_in_link(),
        "home": str(stage.home),
    }


def _invite(stage: Stage, screen: Screen, sign_in_link: str) -> None:
    """Say how to try a demo that stays."""
    url, key = stage.proxy_url, stage.api_key
    screen.gap()
    screen.paragraph("It is still running, until Ctrl-C. Ask it something yourself:")
    screen.gap()
    body = '{"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}]}'
    screen.verbatim(
        f"curl {url}/v1/openai/chat/completions \\\n"
        f"  -H 'Authorization: Bearer {key}' \\\n"
        f"  -H 'Content-Type: application/json' \\\n"
        f"  -d '{body}'"
    )
    screen.gap()
    screen.paragraph("With the Python SDKs, or any client that lets you set a base URL:")
    screen.gap()
    screen.verbatim(
        f'KEY = "{key}"\n'
        f'openai.OpenAI(base_url="{url}/v1/openai", api_key=KEY)\n'
        f'anthropic.Anthropic(base_url="{url}/v1/anthropic", api_key=KEY)'
    )
    screen.gap()
    screen.paragraph(
        "Its provider fails when told to: put [demo:break] or [demo:rate-limit] into a prompt."
    )
    screen.gap()
    screen.paragraph(
        f"Its dashboard is at {url}/dashboard. This link signs {USER} in, who is its operator too; "
        "it works once, within 15 minutes:"
    )
    screen.gap()
    screen.verbatim(sign_in_link)
    screen.gap()
    screen.paragraph("And look at it from another terminal, or make another link:")
    screen.gap()
    screen.verbatim(
        f"export LLMPROXY_HOME={stage.home}\n"
        "llmproxy usage requests\n"
        f"llmproxy users login-link {USER}"
    )
    screen.gap()
