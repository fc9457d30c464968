"""What must be true: after every commit, at every byte that leaves, and when all is over.

The books are read over a connection of its own, which sees only what has been committed.
"""

import json
import re
import sqlite3
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from llmproxy import ledger_check
from llmproxy.storage.database import connect_for_reading
from tests.simulator.office import Office
from tests.simulator.oracle import (
    End,
    Terms,
    cost,
    dearest_note,
    held_for,
    possible_ends,
    read_stream,
    terms_of,
)
from tests.simulator.visit import Visit

_OUR_EVENT = re.compile(
    rb'\n\nevent: error\ndata: (\{[^\n]*"request_id": "req_[0-9a-f]{32}"\})\n\n\Z'
)
_NOT_COVERED = {"insufficient_credit", "ledger_busy"}
_OUR_CODES = {"upstream_interrupted", *_NOT_COVERED}


_MAY_BE_SENT_AGAIN = {401, 429}
"""What is answered so has not been billed, and is about the key that was used."""
QUICK_S = 3.5
"""An answer that has come by then has met no limit of time."""


class Checks:
    """Finds what is wrong, and keeps it until the end of the world."""

    def __init__(self, path: Path, note: Callable[[str], None]) -> None:
        self._connection = connect_for_reading(path)
        self._note = note
        self.violations: list[str] = []
        self.tally: Counter[str] = Counter()

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def fail(self, what: str) -> None:
        """Take note of something that must not be."""
        self._note(f"VIOLATION: {what}")
        self.violations.append(what)

    # --- after each commit -------------------------------------------------------------------

    def wallets(self) -> None:
        """Every balance is the sum of its transfers, every held amount that of its open holds."""
        self.tally["commits"] += 1
        wrong = self._connection.execute(
            """SELECT id, balance_nanousd, held_nanousd FROM wallets
               WHERE held_nanousd < 0 OR held_nanousd > balance_nanousd
                  OR balance_nanousd <> (SELECT coalesce(sum(amount_nanousd), 0)
                                         FROM transfers WHERE wallet_id = wallets.id)
                  OR held_nanousd <> (SELECT coalesce(sum(amount_nanousd), 0) FROM holds
                                      WHERE wallet_id = wallets.id AND state = 'open')"""
        ).fetchall()
        for row in wrong:
            self.fail(f"wallet {row[0]} has a balance of {row[1]} and {row[2]} held")

    # --- while requests run ------------------------------------------------------------------

    def before_sending(self, visit: Visit, office: Office) -> None:
        """What is sent is held durably, and nobody has forbidden it."""
        if visit.ask.is_free:
            return
        hold = self._hold(visit)
        if hold is None or hold["state"] != "open":
            self.fail(f"visit {visit.ask.number} was sent without a hold")
            return
        if any(earlier.status not in _MAY_BE_SENT_AGAIN for earlier in visit.sent[:-1]):
            self.fail(f"visit {visit.ask.number} was sent again after it may have been billed")
        if visit.was_forbidden and office.changes == visit.changes_at_arrival:
            self.fail(f"visit {visit.ask.number} was sent, though it had been forbidden")

    def before_writing(self, visit: Visit, is_last: bool) -> None:
        """What is passed on of a running answer is held; what ends has been settled before."""
        if visit.ask.is_free or not visit.sent:
            return
        if visit.state:
            if is_last and _our_code(bytes(visit.body)) in _NOT_COVERED:
                self._hung_up(visit)
            return
        if is_last and not (visit.status >= 400 and _is_ours(visit)):
            self.fail(f"visit {visit.ask.number} gets its last bytes before it is settled")
        last = visit.sent[-1]
        if last.script is None or not last.script.is_stream or last.wanted is None:
            return
        text_bytes, at = 0, 0
        for event in last.script.events:
            at += len(event.data)
            if at > len(visit.body):
                break
            text_bytes += event.text_bytes
        hold = self._hold(visit)
        assert hold is not None
        needed = held_for(last.wanted, text_bytes, self._terms(hold))
        if hold["state"] == "open" and hold["amount_nanousd"] < needed:
            amount = hold["amount_nanousd"]
            self.fail(f"visit {visit.ask.number} was passed {needed} with {amount} held")

    def _hung_up(self, visit: Visit) -> None:
        """What is generated after a stream has outgrown its hold nobody pays for."""
        self.tally["streams that outgrew their holds"] += 1
        if not visit.sent[-1].was_hung_up_on:
            number = visit.ask.number
            self.fail(f"visit {number} hears that its stream ends, and the provider does not")

    # --- at the end --------------------------------------------------------------------------

    def nothing_is_open(self, when: str) -> None:
        """No hold is open."""
        count = self._connection.execute("SELECT count(*) FROM holds WHERE state = 'open'")
        if (number := count.fetchone()[0]) > 0:
            self.fail(f"{number} holds are open {when}")

    def the_books(self, office: Office) -> None:
        """`ledger verify` is clean, and every credit that was acknowledged is there, once."""
        report = ledger_check.verify(self._connection)
        for problem in report.problems:
            self.fail(f"ledger verify: {problem.row} {problem.message}")
        for account in office.accounts:
            rows = self._connection.execute(
                """SELECT kind, amount_nanousd FROM transfers
                   WHERE wallet_id = ? AND kind <> 'charge' ORDER BY id""",
                (account.wallet_id,),
            )
            moved = [(row[0], row[1]) for row in rows]
            if moved != account.moved:
                self.fail(f"{account.person.name} has {moved}, was told {account.moved}")

    def the_visit(self, visit: Visit, office: Office, *, died: bool, is_calm: bool) -> None:
        """How a request ended: its money, and what its client has of it.

        Args:
            visit: the request.
            office: what the operator has set.
            died: the process has crashed, or could not write any more.
            is_calm: it was not stopped either, and its disk was well.
        """
        if is_calm and not died:
            self._read_to_its_end(visit)
        if not died and visit.has_begun and not visit.has_ended:
            self.fail(f"visit {visit.ask.number} has not ended")
        self._money(visit, office, died=died)
        self._answer(visit, died=died)

    def _money(self, visit: Visit, office: Office, *, died: bool) -> None:
        where = f"visit {visit.ask.number}"
        hold = None if visit.ask.is_free else self._hold(visit)
        if hold is None:
            self.tally["without a hold"] += 1
            if visit.sent and not visit.ask.is_free:
                self.fail(f"{where} was sent, and has no hold")
            if visit.state in {"settled", "released"} and not (died or visit.ask.is_free):
                self.fail(f"{where} is {visit.state}, and has no hold")
            return
        terms = self._terms(hold)
        end = End(hold["state"], hold["basis"], hold["cost_nanousd"])
        self.tally[f"{end.state} by {end.basis}"] += 1
        if hold["charged_nanousd"] + hold["shortfall_nanousd"] != end.cost_nanousd:
            self.fail(f"{where}: charged and shortfall are not the cost")
        if hold["user_multiplier_micro"] not in self._multipliers(visit, office):
            self.fail(f"{where} was priced by a multiplier that nobody has set")
        if end.state == "expired":
            self._expired(visit, end, terms, died=died)
            return
        possible = possible_ends(visit, terms)
        if end not in possible:
            self.fail(f"{where} ended as {end}, not as {possible}")
        if visit.state and (visit.state, visit.trace and visit.trace.basis) != end[:2]:
            self.fail(f"{where} is {end} in the books, and {visit.state} in memory")
        self._shortfall(visit, hold["shortfall_nanousd"], terms)

    def _expired(self, visit: Visit, end: End, terms: Terms, *, died: bool) -> None:
        where = f"visit {visit.ask.number}"
        if not died:
            self.fail(f"{where} expired, though the process lived")
        # Who has left is not asked what was passed on: the answer was read on for the bill.
        highest = dearest_note(visit, terms) if visit.body or visit.is_gone else 0
        if end.cost_nanousd > highest:
            self.fail(f"{where} expired by {end.cost_nanousd}, only {highest} had been seen")

    def _shortfall(self, visit: Visit, shortfall: int, terms: Terms) -> None:
        """The operator pays only for what nobody could foresee.

        That is a provider that bills more than it was asked for; or, of a stream whose hold grows,
        the text that came with one read or in one event, when there was no credit left for it.
        """
        if not shortfall:
            return
        self.tally["shortfalls"] += 1
        sent = visit.sent[-1] if visit.sent else None
        script = sent.script if sent is not None else None
        if sent is None or script is None:
            self.fail(f"visit {visit.ask.number} cost the operator {shortfall}")
        elif script.is_honest:
            grows = script.is_stream and visit.ask.model != "sim-think"
            at_once = max([sent.longest_read, *(len(event.data) for event in script.events)])
            if shortfall > cost({"output": -(-at_once // 2) if grows else 0}, terms):
                self.fail(f"visit {visit.ask.number} cost the operator {shortfall}")

    def _read_to_its_end(self, visit: Visit) -> None:
        """Nobody stops an answer that comes quickly and whole, to a client that takes it."""
        last = visit.sent[-1] if visit.sent else None
        if last is None or last.script is None or last.wanted is None or last.saw:
            return
        is_quick = last.script.ends != "silence" and last.script.end_s < QUICK_S
        if not is_quick or visit.is_gone or visit.was_cancelled or visit.ask.client.read_s > 0.1:
            return
        seen = read_stream(
            last.script, last.read_bytes, has_ended=False, dialect=last.wanted.dialect
        )
        if not seen.is_over and b'"insufficient_credit"' not in visit.body:
            self.fail(f"visit {visit.ask.number} was cut after {last.read_bytes} bytes")

    def _answer(self, visit: Visit, *, died: bool) -> None:
        where = f"visit {visit.ask.number}"
        if not visit.status:
            if visit.has_ended and not (visit.is_gone or visit.was_cancelled or died):
                self.fail(f"{where} got no answer")
            return
        is_excused = visit.is_gone or visit.was_cancelled or died
        if not visit.ended_cleanly and not is_excused:
            self.fail(f"{where} got an answer without an end")
        if visit.status >= 300:
            self._refusal(visit)
            return
        last = visit.sent[-1]
        assert last.script is not None
        assert last.wanted is not None
        body, has_our_event = _without_our_event(bytes(visit.body))
        if not last.script.is_stream:
            if not last.script.body.startswith(body):
                self.fail(f"{where} got other bytes than the provider sent")
            if visit.ended_cleanly and last.saw != "eof":
                self.fail(f"{where} got a clean end of an answer that had none")
            return
        passed = self._passed(visit)
        if not passed.startswith(body):
            self.fail(f"{where} got other bytes than the provider sent")
        if visit.ended_cleanly and not has_our_event:
            seen = read_stream(
                last.script, last.read_bytes, has_ended=True, dialect=visit.ask.dialect
            )
            if not (seen.is_complete or seen.has_error):
                self.fail(f"{where} got a clean end of a stream that had broken off")
            if body != passed:
                self.fail(f"{where} got {len(body)} of {len(passed)} bytes, and a clean end")

    @staticmethod
    def _passed(visit: Visit) -> bytes:
        """Return what the client may have of what the proxy has read."""
        last = visit.sent[-1]
        assert last.script is not None
        left, passed = last.read_bytes, []
        for event in last.script.events:
            part = event.data[:left]
            left -= len(part)
            is_whole = part.rstrip(b"\n") == event.data.rstrip(b"\n")
            if not (event.is_only_usage and not visit.ask.asks_usage and is_whole):
                passed.append(part)
        return b"".join(passed)

    def _refusal(self, visit: Visit) -> None:
        """Who got a refusal, ours or the provider's, has paid nothing."""
        hold = None if visit.ask.is_free else self._hold(visit)
        if hold is not None and hold["cost_nanousd"]:
            self.fail(f"visit {visit.ask.number} paid for its {visit.status}")
        if not _is_ours(visit):
            self.tally["errors passed on"] += 1
            if not visit.sent or visit.sent[-1].status != visit.status:
                self.fail(f"visit {visit.ask.number} got a {visit.status} from nowhere")
            return
        self.tally[f"refused with {visit.status}"] += 1
        error = json.loads(visit.body)["error"] if visit.ended_cleanly else {}
        if error.get("code") == "insufficient_credit":
            needed, available = error["needed_usd"], error["available_usd"]
            if float(needed) <= float(available) and error["max_tokens_affordable"] >= 1024:
                self.fail(f"visit {visit.ask.number} was refused, though it had the money")

    # --- the books as they are ----------------------------------------------------------------

    def _hold(self, visit: Visit) -> sqlite3.Row | None:
        row: sqlite3.Row | None = self._connection.execute(
            """SELECT holds.*, prices, requests.reason FROM holds
               JOIN price_versions ON price_versions.id = price_version_id
               LEFT JOIN requests ON requests.id = holds.id WHERE holds.id = ?""",
            (visit.hold_id,),
        ).fetchone()
        return row

    def _terms(self, hold: sqlite3.Row) -> Terms:
        return terms_of(
            hold["prices"],
            hold["user_multiplier_micro"],
            hold["model_multiplier_micro"],
            hold["amount_nanousd"],
        )

    @staticmethod
    def _multipliers(visit: Visit, office: Office) -> set[int]:
        return office.accounts[visit.ask.person].multipliers


def _is_ours(visit: Visit) -> bool:
    return b"x-request-id" in visit.headers


def _our_code(body: bytes) -> str:
    """Return the code of our error event at the end of a stream, "" if there is none."""
    match = _OUR_EVENT.search(body)
    return str(json.loads(match[1])["error"]["code"]) if match else ""


def _without_our_event(body: bytes) -> tuple[bytes, bool]:
    match = _OUR_EVENT.search(body)
    if match is None or _our_code(body) not in _OUR_CODES:
        return body, False
    return body[: match.start()], True
