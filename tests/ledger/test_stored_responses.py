"""Responses that providers keep: remembered with the end of a hold, dropped when they are old."""

import msgspec

from llmproxy import ledger, stored_responses
from llmproxy.recovery import KeptEnd
from llmproxy.stored_responses import (
    DROPPED_AT_ONCE,
    KEPT_MS,
    SWEEP_EVERY,
    KeptResponse,
    StoredResponse,
    hash_response_id,
)
from tests.support.books import NOW_MS, Book, costing


def end(book: Book, response_id: str, *, key_id: int | None = 3, at_ms: int = NOW_MS) -> ledger.End:
    outcome = msgspec.structs.replace(book.outcome(), provider_key_id=key_id)
    kept = KeptResponse(hash_response_id(response_id), 65)
    return ledger.End("settled", "usage", 1000, costing(outcome, 1000), at_ms, kept)


def made(book: Book, response_id: str, *, key_id: int | None = 3, at_ms: int = NOW_MS) -> None:
    hold = book.placed("0.01")
    with book.write() as tx:
        ledger.end_hold(tx, hold, end(book, response_id, key_id=key_id, at_ms=at_ms))


def found(
    book: Book, response_id: str, *, user: int = 0, provider: str = "openai", now_ms: int = NOW_MS
) -> StoredResponse | None:
    with book.read() as tx:
        return stored_responses.find(tx, user or book.user_id, provider, response_id, now_ms)


def count(book: Book) -> int:
    with book.read() as tx:
        return int(tx.execute("SELECT count(*) FROM stored_responses").fetchone()[0])


def test_a_response_is_found_by_its_user_at_its_provider_alone(book: Book) -> None:
    made(book, "resp_1")
    assert found(book, "resp_1") == StoredResponse(3, "gpt-test", 65)
    assert found(book, "resp_1", user=book.user_id + 1) is None
    assert found(book, "resp_1", provider="xai") is None
    assert found(book, "resp_2") is None


def test_nothing_is_remembered_of_a_hold_that_ends_without_a_response(book: Book) -> None:
    hold = book.placed()
    with book.write() as tx:
        ledger.end_hold(tx, hold, ledger.released(book.outcome(), at_ms=NOW_MS))
    made(book, "resp_1", key_id=None)  # of no key: nobody could serve it
    assert count(book) == 0


def test_of_two_with_one_id_the_later_one_counts(book: Book) -> None:
    made(book, "resp_1", key_id=3)
    made(book, "resp_1", key_id=4)
    response = found(book, "resp_1")
    assert response is not None
    assert response.provider_key_id == 4
    assert count(book) == 1


def test_a_response_is_known_for_as_long_as_its_provider_keeps_it(book: Book) -> None:
    made(book, "resp_1")
    assert found(book, "resp_1", now_ms=NOW_MS + KEPT_MS) is not None
    assert found(book, "resp_1", now_ms=NOW_MS + KEPT_MS + 1) is None


def test_old_ones_go_while_new_ones_come_and_no_others(book: Book) -> None:
    old = DROPPED_AT_ONCE + 10
    for number in range(old):
        made(book, f"resp_old_{number}")
    later_ms, counts = NOW_MS + KEPT_MS + 1, []
    for number in range(2 * SWEEP_EVERY):
        made(book, f"resp_{number}", at_ms=later_ms)
        counts.append(count(book) - number - 1)
    # Of the old ones all are there, then ten, then none.
    assert sorted(set(counts), reverse=True) == [old, 10, 0]
    assert sorted(counts, reverse=True) == counts
    assert found(book, "resp_0", now_ms=later_ms) is not None


def test_it_survives_where_ends_are_kept_while_the_database_takes_none(book: Book) -> None:
    kept = KeptEnd(book.placed(), end(book, "resp_1"))
    assert msgspec.json.decode(msgspec.json.encode(kept), type=KeptEnd) == kept
    # So does an end that a program without this has kept.
    older = msgspec.to_builtins(kept)
    del older["end"]["kept"]
    assert msgspec.convert(older, KeptEnd).end.kept is None
