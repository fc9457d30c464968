"""What a page changes without noting it in the audit log is not changed."""

import pytest

from llmproxy import accounts, audit
from llmproxy.dashboard.signed_in import SignedIn, noted
from llmproxy.dashboard.visit import Visit
from llmproxy.storage.database import Tx
from tests.support.books import Book

NOW_MS = 1_790_000_000_000


def test_a_change_must_be_noted(book: Book) -> None:
    with book.write() as tx:
        eve = accounts.create_user(tx, "eve", now_ms=NOW_MS)
    signed_in = SignedIn(eve, Visit("", "", False, "", "", "", ""), NOW_MS)

    def rename(tx: Tx, signed_in: SignedIn, *, is_noted: bool) -> None:
        tx.execute("UPDATE users SET name = 'zoe' WHERE id = ?", (signed_in.user.id,))
        if is_noted:
            signed_in.note(tx, "users rename", "eve zoe")

    with pytest.raises(AssertionError, match="audit log"), book.write() as tx:
        noted(rename)(tx, signed_in, is_noted=False)
    with book.write() as tx:
        assert accounts.find_user(tx, "eve") == eve
        noted(rename)(tx, signed_in, is_noted=True)
        (act,) = audit.list_acts(tx, limit=2)
    assert (act.actor, act.act, act.details) == ("dashboard:eve", "users rename", "eve zoe")
