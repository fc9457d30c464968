"""Lists of API keys: which keys are on which page, and that no others are gone through for it."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from llmproxy import accounts, key_lists
from llmproxy.accounts import NEVER_MS, ApiKey, User
from llmproxy.storage.database import AdminDatabase, Tx
from tests.support.books import NOW_MS
from tests.support.older import make_first_schema
from tests.support.planned import Planned


@pytest.fixture
def database(tmp_path: Path) -> Iterator[AdminDatabase]:
    with closing(AdminDatabase(tmp_path / "data" / "llmproxy.db")) as database:
        yield database


def insert(tx: Tx, user: User, name: str, *, expires: int | None, revoked: int | None) -> None:
    """Leave a key as its past has left it, with ends that lie so many ms from now."""
    ends = [None if each is None else NOW_MS + each for each in (expires, revoked)]
    tx.execute(
        """INSERT INTO api_keys(user_id, name, hash, masked, created_at_ms, expires_at_ms,
                                revoked_at_ms)
           VALUES(?, ?, ?, 'llmp_…', ?, ?, ?)""",
        (user.id, name, os.urandom(32), NOW_MS, *ends),
    )


def names(keys: list[ApiKey]) -> list[str]:
    return [key.name for key in keys]


def test_a_key_is_on_one_of_the_two_lists_by_the_earlier_of_its_ends(
    database: AdminDatabase,
) -> None:
    with database.write() as tx:
        ann = accounts.create_user(tx, "ann", now_ms=NOW_MS)
        for name, expires, revoked in (
            ("for-ever", None, None),
            ("expires-later", 1, None),
            ("expires-now", 0, None),
            ("replaced", None, 1),
            ("revoked", None, -2),
            ("revoked-before-it-expired", 5, -9),
            ("expired-before-it-was-revoked", -7, 5),
        ):
            insert(tx, ann, name, expires=expires, revoked=revoked)
        live = key_lists.page_of_live_keys(tx, ann, 1, now_ms=NOW_MS, rows_max=10)
        ended = key_lists.page_of_ended_keys(tx, ann, 1, now_ms=NOW_MS, rows_max=10)
        working = accounts.list_api_keys(tx, ann, limit=-1, live_at_ms=NOW_MS)
        counted = {
            name: key_lists.count_live_keys(tx, ann, now_ms=NOW_MS, name=name)
            for name in (None, "replaced", "revoked", "never-was")
        }
    assert names(live.keys) == ["replaced", "expires-later", "for-ever"]
    assert names(working) == ["for-ever", "expires-later", "replaced"]
    assert names(ended.keys) == [
        *("expires-now", "revoked", "expired-before-it-was-revoked", "revoked-before-it-expired"),
    ]
    assert counted == {None: 3, "replaced": 1, "revoked": 0, "never-was": 0}


def test_the_pages_together_have_every_key_once(database: AdminDatabase) -> None:
    with database.write() as tx:
        ann, ben = (accounts.create_user(tx, name, now_ms=NOW_MS) for name in ("ann", "ben"))
        for number in range(5):
            for user in (ann, ben):
                insert(tx, user, f"{user.name}-live-{number}", expires=None, revoked=None)
                insert(tx, user, f"{user.name}-ended-{number}", expires=None, revoked=number - 9)
        for page_of, word in (
            (key_lists.page_of_live_keys, "live"),
            (key_lists.page_of_ended_keys, "ended"),
        ):
            pages = [page_of(tx, ann, number, now_ms=NOW_MS, rows_max=2) for number in (1, 2, 3)]
            found = [names(page.keys) for page in pages]
            newest = [f"ann-{word}-{number}" for number in (4, 3, 2, 1, 0)]
            assert found == [newest[:2], newest[2:4], newest[4:]]
            assert [(page.first, page.last, page.has_next) for page in pages] == [
                *((1, 2, True), (3, 4, True), (5, 5, False)),
            ]
            assert {page.total for page in pages} == {5}
            # One that is too high, or none, is the last or the first.
            for number, page in ((0, pages[0]), (-3, pages[0]), (4, pages[2]), (10**8, pages[2])):
                assert page_of(tx, ann, number, now_ms=NOW_MS, rows_max=2) == page
        nobody = accounts.create_user(tx, "new", now_ms=NOW_MS)
        empty = key_lists.page_of_live_keys(tx, nobody, 3, now_ms=NOW_MS, rows_max=2)
    assert empty == key_lists.KeyPage([], 0, 1, 2)
    assert (empty.first, empty.last, empty.has_next) == (1, 0, False)


def test_of_the_keys_that_were_made_the_newest_are_counted(database: AdminDatabase) -> None:
    with database.write() as tx:
        ann, ben = (accounts.create_user(tx, name, now_ms=NOW_MS) for name in ("ann", "ben"))
        for at_ms, user in ((1, ann), (5, ann), (6, ben), (6, ann), (7, ann)):
            accounts.create_api_key(tx, user, f"k{at_ms}", now_ms=at_ms)
        accounts.revoke_api_key(tx, ann, "k6", now_ms=8)
        made = [
            key_lists.count_keys_made(tx, ann, since_ms=since_ms, limit=limit)
            for since_ms, limit in ((4, 9), (5, 9), (7, 9), (0, 9), (0, 2), (5, 2))
        ]
    assert made == [3, 2, 0, 4, 2, 2]


def steps_of_keys(planned: Planned) -> list[str]:
    """How rows of API keys are found."""
    steps = [step for plan in planned.plans.values() for step in plan]
    return [step for step in steps if step.split()[1:2] == ["api_keys"]]


def test_what_is_asked_of_one_user_goes_through_no_keys_of_others(database: AdminDatabase) -> None:
    with database.write() as tx:
        ann = accounts.create_user(tx, "ann", now_ms=NOW_MS)
        planned = Planned(tx, database.files.path)
        ptx: Any = planned
        for name in ("laptop", "course"):
            accounts.create_api_key(ptx, ann, name, now_ms=NOW_MS)
        accounts.rotate_api_key(ptx, ann, "laptop", now_ms=NOW_MS)
        accounts.revoke_api_key(ptx, ann, "course", now_ms=NOW_MS)
        accounts.find_live_keys(ptx, ann, "laptop", now_ms=NOW_MS)
        accounts.list_api_keys(ptx, ann, limit=-1)
        accounts.list_api_keys(ptx, ann, limit=-1, live_at_ms=NOW_MS)
        key_lists.page_of_live_keys(ptx, ann, 1, now_ms=NOW_MS, rows_max=9)
        key_lists.page_of_ended_keys(ptx, ann, 1, now_ms=NOW_MS, rows_max=9)
        key_lists.count_keys_made(ptx, ann, since_ms=1, limit=9)
        accounts.list_api_keys(ptx, None, limit=9)
        planned.close()
    steps = steps_of_keys(planned)
    assert len(steps) >= 12
    assert [step for step in steps if not step.startswith("SEARCH api_keys USING ")] == []


def test_what_is_done_for_each_new_key_passes_over_those_that_ended(
    database: AdminDatabase,
) -> None:
    """They are never deleted: a user may have thousands."""
    with database.write() as tx:
        ann = accounts.create_user(tx, "ann", now_ms=NOW_MS)
        planned = Planned(tx, database.files.path)
        ptx: Any = planned
        key_lists.count_live_keys(ptx, ann, now_ms=NOW_MS)
        key_lists.page_of_live_keys(ptx, ann, 1, now_ms=NOW_MS, rows_max=9)
        planned.close()
    by_end = "SEARCH api_keys USING INDEX api_keys_end (user_id=? AND ends_at_ms>?)"
    assert steps_of_keys(planned) == [by_end, by_end]


def test_keys_of_an_older_database_end_when_they_did(tmp_path: Path) -> None:
    path = tmp_path / "data" / "llmproxy.db"
    make_first_schema(
        path,
        "INSERT INTO users(name, rate_multiplier_micro, created_at_ms) VALUES('ann', 1000000, 1)",
        *(
            f"""INSERT INTO api_keys(user_id, name, hash, masked, created_at_ms, revoked_at_ms)
                VALUES(1, '{name}', randomblob(32), 'm', 1, {revoked})"""
            for name, revoked in (("live", "NULL"), ("revoked", NOW_MS))
        ),
    )
    with closing(AdminDatabase(path)) as opened, opened.write() as tx:
        ends = dict(tx.execute("SELECT name, ends_at_ms FROM api_keys").fetchall())
        assert ends == {"live": NEVER_MS, "revoked": NOW_MS}
        assert tx.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        with pytest.raises(sqlite3.OperationalError, match="generated column"):
            tx.execute("UPDATE api_keys SET ends_at_ms = 1")
