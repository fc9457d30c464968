"""Users and their API keys."""

import asyncio
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llmproxy import accounts
from llmproxy.accounts import NEVER_MS
from llmproxy.authentication import Authentication
from llmproxy.clock import Clock
from llmproxy.errors import NotFoundError, RefusedError
from llmproxy.storage.database import AdminDatabase, Tx
from llmproxy.vault import hash_api_key
from tests.support.books import NOW_MS
from tests.support.planned import Planned


@pytest.fixture
def database(tmp_path: Path) -> Iterator[AdminDatabase]:
    database = AdminDatabase(tmp_path / "data" / "llmproxy.db")
    yield database
    database.close()


@pytest.mark.parametrize("name", ["a", "0", "ann", "ann.b_c@x-y", "a" * 64])
def test_names_that_can_stand_in_urls_and_logs_are_taken(
    database: AdminDatabase, name: str
) -> None:
    with database.write() as tx:
        user = accounts.create_user(tx, name, now_ms=NOW_MS)
    assert (user.name, user.balance_nanousd, user.available_nanousd) == (name, 0, 0)
    assert user.rate_multiplier_micro == 1_000_000


@pytest.mark.parametrize(
    "name", ["", "Ann", ".ann", "-a", "a b", "a/b", "ännchen", "a" * 65, "a\n"]
)
def test_other_names_are_refused(database: AdminDatabase, name: str) -> None:
    with database.write() as tx, pytest.raises(RefusedError, match="cannot be a user name"):
        accounts.create_user(tx, name, now_ms=NOW_MS)


def test_a_name_is_given_once(database: AdminDatabase) -> None:
    with database.write() as tx:
        accounts.create_user(tx, "ann", now_ms=NOW_MS)
        with pytest.raises(RefusedError, match="exists already"):
            accounts.create_user(tx, "ann", now_ms=NOW_MS)


def test_only_what_is_given_of_a_user_is_changed(database: AdminDatabase) -> None:
    with database.write() as tx:
        before = accounts.create_user(tx, "ann", now_ms=NOW_MS)
        assert accounts.set_user(tx, "ann", now_ms=NOW_MS) == before
        disabled = accounts.set_user(tx, "ann", now_ms=NOW_MS + 1, is_disabled=True)
        assert disabled.disabled_at_ms == NOW_MS + 1
        both = accounts.set_user(tx, "ann", now_ms=NOW_MS + 2, rate_multiplier_micro=0)
        assert (both.disabled_at_ms, both.rate_multiplier_micro) == (NOW_MS + 1, 0)
        assert accounts.set_user(tx, "ann", now_ms=1, is_disabled=False).disabled_at_ms is None
        with pytest.raises(NotFoundError, match="no user 'zoe'"):
            accounts.set_user(tx, "zoe", now_ms=NOW_MS, is_disabled=True)


def test_users_are_listed_by_name_up_to_a_limit(database: AdminDatabase) -> None:
    with database.write() as tx:
        for name in ("cid", "ann", "ben"):
            accounts.create_user(tx, name, now_ms=NOW_MS)
        assert [user.name for user in accounts.list_users(tx, limit=2)] == ["ann", "ben"]
        assert len(accounts.list_users(tx, limit=-1)) == 3


def test_an_api_key_speaks_for_its_user_until_it_is_revoked(database: AdminDatabase) -> None:
    with database.write() as tx:
        user = accounts.create_user(tx, "ann", now_ms=NOW_MS, rate_multiplier_micro=1_200_000)
        api_key = accounts.create_api_key(tx, user, "laptop", now_ms=NOW_MS)
        principal = accounts.load_principals(tx, now_ms=NOW_MS + 1)[hash_api_key(api_key)]
        assert (principal.user, principal.api_key) == ("ann", "laptop")
        assert (principal.user_id, principal.wallet_id) == (user.id, user.wallet_id)
        assert principal.rate_multiplier_micro == 1_200_000
        accounts.revoke_api_key(tx, user, "laptop", now_ms=NOW_MS + 1)
        assert accounts.load_principals(tx, now_ms=NOW_MS + 1) == {}
        with pytest.raises(NotFoundError, match="no live API key"):
            accounts.revoke_api_key(tx, user, "laptop", now_ms=NOW_MS + 2)


def test_keys_that_ended_lately_are_known_for_what_they_began_and_let_nobody_in(
    database: AdminDatabase,
) -> None:
    with database.write() as tx:
        user = accounts.create_user(tx, "ann", now_ms=NOW_MS)
        accounts.create_api_key(tx, user, "laptop", now_ms=NOW_MS)
        accounts.revoke_api_key(tx, user, "laptop", now_ms=NOW_MS + 10)
        load = partial(accounts.load_principals, tx, ended_for_ms=1000)
        ended = load(now_ms=NOW_MS + 1009)
        assert [principal.api_key for principal in ended.values()] == ["laptop"]
        assert load(now_ms=NOW_MS + 1010) == {}
    authentication = Authentication(Clock(), asyncio.Future, ())
    authentication.publish(ended)
    assert not authentication.has_api_keys
    authentication.publish({b"": msgspec.structs.replace(*ended.values(), ends_at_ms=NEVER_MS)})
    assert authentication.has_api_keys


def test_keys_that_ended_are_not_gone_through_for_those_that_work(
    database: AdminDatabase, tmp_path: Path
) -> None:
    """All are read anew at each change of a user, key or provider; rows of keys are kept."""
    with database.write() as tx:
        user = accounts.create_user(tx, "ann", now_ms=NOW_MS)
        for number in range(50):
            accounts.create_api_key(tx, user, f"ended-{number}", now_ms=NOW_MS)
            accounts.revoke_api_key(tx, user, f"ended-{number}", now_ms=NOW_MS)
        api_key = accounts.create_api_key(tx, user, "laptop", now_ms=NOW_MS)
        planned = Planned(tx, tmp_path / "data" / "llmproxy.db")
        ptx: Any = planned
        found = accounts.load_principals(ptx, now_ms=NOW_MS + 1)
        planned.close()
    assert list(found) == [hash_api_key(api_key)]
    (plan,) = (steps for sql, steps in planned.plans.items() if "api_keys.hash" in sql)
    (step,) = (step for step in plan if " api_keys" in step)
    assert step == "SEARCH api_keys USING INDEX api_keys_end (user_id=? AND ends_at_ms>?)"


def test_a_disabled_users_keys_are_known_as_such(database: AdminDatabase) -> None:
    with database.write() as tx:
        user = accounts.create_user(tx, "ann", now_ms=NOW_MS)
        accounts.create_api_key(tx, user, "laptop", now_ms=NOW_MS)
        for is_disabled in (True, False):
            accounts.set_user(tx, "ann", now_ms=NOW_MS, is_disabled=is_disabled)
            (principal,) = accounts.load_principals(tx, now_ms=NOW_MS + 1).values()
            assert principal.is_disabled is is_disabled


def test_a_revoked_keys_name_may_be_used_again(database: AdminDatabase) -> None:
    with database.write() as tx:
        user = accounts.create_user(tx, "ann", now_ms=NOW_MS)
        accounts.create_api_key(tx, user, "laptop", now_ms=NOW_MS)
        with pytest.raises(RefusedError, match="already"):
            accounts.create_api_key(tx, user, "laptop", now_ms=NOW_MS)
        accounts.revoke_api_key(tx, user, "laptop", now_ms=NOW_MS)
        accounts.create_api_key(tx, user, "laptop", now_ms=NOW_MS)
        listed = accounts.list_api_keys(tx, user, limit=10)
    assert [key.revoked_at_ms is None for key in listed] == [False, True]
    assert accounts.ApiKey(1, "ann", "laptop", listed[0].masked, NOW_MS, None, NOW_MS) == listed[0]


@pytest.mark.parametrize("name", ["", " laptop", "a/b", "x" * 65, "tab\t"])
def test_key_names_that_could_confuse_a_list_are_refused(
    database: AdminDatabase, name: str
) -> None:
    with database.write() as tx:
        user = accounts.create_user(tx, "ann", now_ms=NOW_MS)
        with pytest.raises(RefusedError, match="cannot be a key name"):
            accounts.create_api_key(tx, user, name, now_ms=NOW_MS)


def speaks_for(tx: Tx, api_key: str, now_ms: int) -> str | None:
    """Whom a key speaks for at a moment, by the rule of the request path."""
    found = accounts.load_principals(tx, now_ms=now_ms).get(hash_api_key(api_key))
    return found.api_key if found and found.ends_at_ms > now_ms else None


def test_a_rotated_key_gives_its_name_to_the_new_one_and_works_through_the_overlap(
    database: AdminDatabase,
) -> None:
    with database.write() as tx:
        user = accounts.create_user(tx, "ann", now_ms=NOW_MS)
        first = accounts.create_api_key(tx, user, "laptop", now_ms=NOW_MS)
        second = accounts.rotate_api_key(tx, user, "laptop", now_ms=NOW_MS, overlap_ms=1000)
        third = accounts.rotate_api_key(tx, user, "laptop", now_ms=NOW_MS, overlap_ms=2000)
        for key, lasts_ms in ((first, 1000), (second, 2000)):
            assert speaks_for(tx, key, NOW_MS + lasts_ms - 1) == "laptop"
            assert speaks_for(tx, key, NOW_MS + lasts_ms) is None
        assert speaks_for(tx, third, NOW_MS + 10**12) == "laptop"
        states = [key.state(NOW_MS + 1500) for key in accounts.list_api_keys(tx, user, limit=-1)]
        assert states == ["revoked", "replaced", "live"]
        assert accounts.revoke_api_key(tx, user, "laptop", now_ms=NOW_MS + 1500) == 2
        assert accounts.load_principals(tx, now_ms=NOW_MS + 1500) == {}
        with pytest.raises(NotFoundError, match="no live API key"):
            accounts.rotate_api_key(tx, user, "laptop", now_ms=NOW_MS + 1500)


def test_a_key_ends_when_it_expires_and_its_name_is_free_again(database: AdminDatabase) -> None:
    with database.write() as tx:
        user = accounts.create_user(tx, "ann", now_ms=NOW_MS)
        end = NOW_MS + 5000
        api_key = accounts.create_api_key(tx, user, "ci", now_ms=NOW_MS, expires_at_ms=end)
        assert speaks_for(tx, api_key, end - 1) == "ci"
        assert speaks_for(tx, api_key, end) is None
        with pytest.raises(NotFoundError):
            accounts.rotate_api_key(tx, user, "ci", now_ms=end)
        with pytest.raises(NotFoundError):
            accounts.revoke_api_key(tx, user, "ci", now_ms=end)
        accounts.create_api_key(tx, user, "ci", now_ms=end)
        listed = accounts.list_api_keys(tx, user, limit=-1)
        assert [key.state(end) for key in listed] == ["revoked", "live"]
        with pytest.raises(RefusedError, match="lies ahead"):
            accounts.create_api_key(tx, user, "old", now_ms=end, expires_at_ms=end)


def test_a_new_key_keeps_the_end_of_the_one_that_it_replaces(database: AdminDatabase) -> None:
    with database.write() as tx:
        user = accounts.create_user(tx, "ann", now_ms=NOW_MS)
        end = NOW_MS + 5000
        accounts.create_api_key(tx, user, "ci", now_ms=NOW_MS, expires_at_ms=end)
        second = accounts.rotate_api_key(tx, user, "ci", now_ms=NOW_MS, overlap_ms=10**9)
        old, new = accounts.list_api_keys(tx, user, limit=-1)
        assert (old.ends_at_ms, old.state(end), new.ends_at_ms) == (end, "expired", end)
        accounts.rotate_api_key(tx, user, "ci", now_ms=NOW_MS, expires_at_ms=end + 1)
        assert speaks_for(tx, second, NOW_MS + 1) is None
        assert accounts.list_api_keys(tx, user, limit=-1)[2].ends_at_ms == end + 1
