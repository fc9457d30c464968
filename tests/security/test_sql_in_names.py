"""S1: five hundred pieces of SQL in everything that a client may say, and none is run."""

import json
import re
from itertools import product
from urllib.parse import quote

import pytest

from llmproxy import accounts
from llmproxy.errors import RefusedError
from tests.proxy.helpers import CHAT, Site, chat
from tests.security.visit import Visit

SEEDS = (
    *("' OR '1'='1", "' OR 1=1--", '" OR ""="', "x'; DROP TABLE users;--", "1; DELETE FROM holds"),
    *("' UNION SELECT hash FROM api_keys--", "') OR ('1'='1", "'||(SELECT sqlite_version())||'"),
    *("x' AND 1=(SELECT count(*) FROM wallets)--", "'; ATTACH DATABASE '/tmp/x' AS y;--"),
    *("'; PRAGMA writable_schema=1;--", "' AND load_extension('x')--", "%", "_%", "%' --", "\\'"),
    *("'; UPDATE wallets SET balance_nanousd=9e18;--", "NULL", ":name", "?1", "@x", "$x", "'/*"),
    *("' AND randomblob(1000000000)--", "admin'--", "`", "''", "'\"", "[users]", "x' GLOB '*"),
)
AROUND = (
    *("{}", "gpt-4o{}", "{}gpt-4o", "llmp_{}", " {}", "{} ", "'{}", "{}'", "({})", "{}\t--"),
    *("{}/**/", "{};", "x\u2019{}", "\ufeff{}", "{}\u0000", "0x27{}", "%27{}", "req_{}"),
)
ORDINARY = re.compile(r"[\w.@ -]{1,64}", re.ASCII)
"""Nothing but letters of a name, such as `NULL`: a name like any other."""
PAYLOADS = [around.format(seed) for seed, around in product(SEEDS, AROUND)]


def counts(site: Site) -> list[int]:
    """How many rows there are of what a client must not make or delete, and the schema."""
    tables = ("users", "wallets", "api_keys", "providers", "provider_keys", "transfers")
    return [
        *(site.books.count(f"SELECT count(*) FROM {table}") for table in tables),
        site.books.count("SELECT sum(length(sql)) FROM sqlite_schema"),
        site.books.count("SELECT coalesce(sum(balance_nanousd), 0) FROM wallets"),
    ]


def test_there_are_five_hundred() -> None:
    assert len(set(PAYLOADS)) >= 500


def test_no_key_is_sql(site: Site) -> None:
    before, visit = counts(site), Visit(site)
    for payload in PAYLOADS:
        printable = payload.encode("ascii", "ignore").decode().replace("\0", "")
        headers = {"authorization": f"Bearer {printable}", "x_api_key": printable}
        status, _ = visit.ask("GET", f"/v1/key?key={quote(payload)}", None, **headers)
        assert status == 401, payload
    visit.close()
    assert counts(site) == before


def test_no_model_is_sql(site: Site) -> None:
    visitor, visit, seen = site.visitor(), Visit(site), len(site.stub.requests)
    before = counts(site)
    for payload in PAYLOADS:
        status, said = visit.ask("POST", CHAT, chat(model=payload), x_api_key=visitor.key)
        assert status == 400, payload
        assert json.loads(said)["error"]["code"] == "unknown_model_pricing"
    visit.close()
    assert (counts(site), len(site.stub.requests)) == (before, seen)


@pytest.mark.parametrize("name", ["from", "to", "group", "format", "limit", "cursor"])
def test_no_parameter_is_sql(site: Site, name: str) -> None:
    visitor, visit = site.visitor(), Visit(site)
    before = counts(site)
    for payload in PAYLOADS:
        path = f"/v1/usage?{name}={quote(payload)}"
        if name == "cursor":  # a name of a group: any text is one
            path += "&group=model"
        status, said = visit.ask("GET", path, x_api_key=visitor.key)
        if name == "cursor":
            assert (status, json.loads(said)["data"]) == (200, []), payload
        else:
            assert status == 400, payload
    visit.close()
    assert counts(site) == before


def test_no_idempotency_key_and_no_path_of_a_model_is_sql(site: Site) -> None:
    visitor, visit = site.visitor(), Visit(site)
    before = counts(site)
    for number, payload in enumerate(PAYLOADS):
        printable = payload.encode("ascii", "ignore").decode().replace("\0", "")
        given = {"x_api_key": visitor.key, "idempotency_key": printable}
        status, _ = visit.ask("POST", CHAT, chat(model=f"no-{number}"), **given)
        assert status == 400, payload
        path = f"/v1/openai/models/{quote(payload, safe='')}"
        assert visit.ask("GET", path, x_api_key=visitor.key)[0] == 404, payload
    visit.close()
    assert counts(site) == before


def test_no_name_of_a_user_or_a_key_is_sql(site: Site) -> None:
    before = counts(site)
    name, _ = site.books.user(credit="0")
    payloads = [payload for payload in PAYLOADS if not ORDINARY.fullmatch(payload)]
    assert len(payloads) >= 500
    for payload in payloads:
        with pytest.raises(RefusedError), site.books.write() as tx:
            accounts.create_user(tx, payload, now_ms=1)
        with site.books.write() as tx:
            user = accounts.find_user(tx, name)
            with pytest.raises(RefusedError):
                accounts.create_api_key(tx, user, payload, now_ms=1)
    after = counts(site)
    assert after[3:] == before[3:]
    assert [after[0], after[1], after[2]] == [before[0] + 1, before[1] + 1, before[2] + 1]
