"""An own price is taken back as it was shown, and not when it has changed since."""

import json
import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import pytest

from tests.dashboard.helpers import Desk, Visitor
from tests.dashboard.operators import acts_count, assert_sound, operator
from tests.dashboard.test_admin_catalog import (
    CATALOG,
    GPT,
    MODEL,
    applied,
    differences,
    facts,
    previewed,
    removal,
    removal_form,
)
from tests.proxy.conftest import running_site
from tests.support.limits import make_seen
from tests.support.waiting import wait_until


@pytest.fixture
def olga(own_desk: Desk) -> Visitor:
    return operator(own_desk)


@pytest.fixture
def desk_with_file(tmp_path: Path) -> Iterator[Desk]:
    """A dashboard whose catalog is a file of the operator's."""
    head = {"schema": 1, "currency": "USD", "unit": "per 1M tokens", "updated": "2026-11-01"}
    models = {"openai/gpt-4o": {"in_price": "2.50", "out_price": "10"}}
    (tmp_path / "catalog.json").write_text(json.dumps({**head, "models": models}))
    environ = {"LLMPROXY_CATALOG_FILE": str(tmp_path / "catalog.json")}
    with running_site(tmp_path / "home", environ) as site, Desk(site) as desk:
        yield desk


def test_an_override_that_another_operator_has_changed_is_not_removed(
    own_desk: Desk, olga: Visitor
) -> None:
    page = f"{MODEL}?name=openai/gpt-4o"
    own_desk.run("catalog", "set", "openai", "gpt-4o", "--in-price", "4")
    wait_until(lambda: "Remove the override" in olga.text(page))
    form, acts = removal(olga, page), acts_count(own_desk)
    assert applied(operator(own_desk), **GPT, in_price="5").status_code == 303
    for stale in (form, {**form, "seen": ""}, GPT):
        refused = olga.submit(f"{CATALOG}/remove", **stale)
        assert refused.status_code == 422
        assert "have changed since this form was shown" in refused.text
        assert_sound(refused)
        # It is shown again as it is now, and can be removed as that.
        assert differences(refused.text) == {"in_price": ("2.50", "5.00")}
    assert own_desk.json("catalog", "show", "openai/gpt-4o")["in_price"] == "5.00"
    assert acts_count(own_desk) == acts + 1
    assert olga.submit(f"{CATALOG}/remove", **removal(olga, page)).status_code == 303
    assert own_desk.json("catalog", "show", "openai/gpt-4o")["in_price"] == "2.50"


def test_who_removes_what_another_operator_has_removed_sees_the_model_as_it_is(
    own_desk: Desk, olga: Visitor
) -> None:
    page = f"{MODEL}?name=openai/gpt-4o"
    assert applied(olga, **GPT, in_price="4").status_code == 303
    form = removal(olga, page)
    assert operator(own_desk).submit(f"{CATALOG}/remove", **form).status_code == 303
    acts = acts_count(own_desk)
    told = olga.submit(f"{CATALOG}/remove", **form)
    assert told.status_code == 422
    assert_sound(told)
    assert "no entry of your own for openai/gpt-4o. See the catalog.</p>" in told.text
    assert re.findall("<h1>(.*?)</h1>", told.text) == ["gpt-4o"]
    assert "Remove the override" not in told.text
    assert acts_count(own_desk) == acts


def test_who_removes_a_model_that_is_gone_by_then_sees_the_list(
    own_desk: Desk, olga: Visitor
) -> None:
    new = {"provider": "openai", "model": "our-own"}
    assert applied(olga, **new, in_price="1", out_price="2").status_code == 303
    form = removal(olga, f"{MODEL}?name=openai/our-own")
    assert operator(own_desk).submit(f"{CATALOG}/remove", **form).status_code == 303
    told = olga.submit(f"{CATALOG}/remove", **form)
    assert told.status_code == 422
    assert_sound(told)
    assert "no entry of your own for openai/our-own" in told.text
    assert re.findall("<h1>(.*?)</h1>", told.text) == ["Catalog"]


def store(desk: Desk, entry: str) -> None:
    """Leave an own entry for gpt-4o as no page would."""
    with desk.books.write() as tx:
        tx.execute(
            """INSERT OR REPLACE INTO catalog_overrides(provider, model, entry, actor,
                                                        updated_at_ms)
               VALUES('openai', 'gpt-4o', ?, 'test', 1)""",
            (entry,),
        )
    make_seen(desk.site)


@pytest.mark.parametrize("entry", ["{", "[]", '{"in_price": "3", "prices": 5}'])
def test_a_price_is_not_built_on_a_damaged_entry(own_desk: Desk, olga: Visitor, entry: str) -> None:
    _, form = previewed(olga, **GPT, in_price="5", out_price="6", cache_read="1")
    store(own_desk, entry)
    for path in ("preview", "set"):
        told = olga.submit(f"{CATALOG}/{path}", **form)
        assert told.status_code == 422
        assert_sound(told)
        page = unescape(told.text)
        assert "Your own entry for openai/gpt-4o is damaged (" in page
        assert "). Remove it first.</p>" in page
    # As the message says, and where the list offers it.
    assert olga.submit(f"{CATALOG}/remove", **removal(olga, CATALOG)).status_code == 303
    assert applied(olga, **GPT, in_price="5", out_price="6").status_code == 303


def test_an_entry_that_cannot_be_used_is_removed_unless_it_was_mended(
    own_desk: Desk, olga: Visitor
) -> None:
    store(own_desk, "{")
    form = removal(olga, CATALOG)
    store(own_desk, '{"in_price": "4"}')
    refused = olga.submit(f"{CATALOG}/remove", **form)  # for another reason now
    assert (refused.status_code, "have changed since" in refused.text) == (422, True)
    assert_sound(refused)
    # The list is shown again: there it can be removed as it is now.
    assert removal_form(refused.text) == removal(olga, CATALOG) != form
    store(own_desk, '{"in_price": "4", "out_price": "10"}')
    refused = olga.submit(f"{CATALOG}/remove", **form)
    assert (refused.status_code, differences(refused.text)["in_price"]) == (422, ("2.50", "4.00"))
    store(own_desk, "{")
    assert olga.submit(f"{CATALOG}/remove", **removal(olga, CATALOG)).status_code == 303
    assert own_desk.json("catalog", "show", "openai/gpt-4o")["own"] is False


def test_an_override_is_not_removed_for_a_file_that_has_changed(
    desk_with_file: Desk, tmp_path: Path
) -> None:
    """What would count without it is not what the form showed."""
    olga, page = operator(desk_with_file), f"{MODEL}?name=openai/gpt-4o"
    assert applied(olga, **GPT, in_price="5").status_code == 303
    form, path = removal(olga, page), tmp_path / "catalog.json"
    other = json.loads(path.read_bytes())
    other["models"]["openai/gpt-4o"]["in_price"] = "7"
    path.write_text(json.dumps(other))
    wait_until(lambda: differences(olga.text(page)).get("in_price") == ("7.00", "5.00"))
    refused = olga.submit(f"{CATALOG}/remove", **form)
    assert (refused.status_code, "have changed since" in refused.text) == (422, True)
    assert olga.submit(f"{CATALOG}/remove", **removal(olga, page)).status_code == 303
    assert facts(olga, "openai/gpt-4o")["Prices from"].endswith("catalog.json")
