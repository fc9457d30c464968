"""The catalog on the dashboard: looked up, changed after a look at the differences, priced by."""

import asyncio
import json
import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import httpx
import pytest

from llmproxy.catalog_parser import Document
from llmproxy.errors import CatalogError
from llmproxy.live_catalog import LiveCatalog
from tests.dashboard.helpers import Desk, Visitor
from tests.dashboard.operators import ADMIN, acts_count, assert_sound, last_act, operator
from tests.dashboard.test_safety import XSS
from tests.proxy.conftest import running_site
from tests.service.helpers import either
from tests.support.waiting import wait_until

CATALOG = f"{ADMIN}/catalog"
MODEL = f"{CATALOG}/model"
GPT = {"provider": "openai", "model": "gpt-4o"}


@pytest.fixture
def olga(own_desk: Desk) -> Visitor:
    return operator(own_desk)


def names(html: str) -> list[str]:
    """The models of a list."""
    found = re.findall(r'<td class="main"><a href="[^"]*">([^<]*)</a>', html)
    return [unescape(each) for each in found]


def differences(html: str) -> dict[str, tuple[str, str]]:
    """What a table of differences says, by the names of the fields."""
    rows = re.findall(
        r'<td class="main">([^<]*?) ?(?:<span[^>]*>jump</span>)?</td>\s*<td class="n wrap"[^>]*>'
        r'([^<]*)</td>\s*<td class="n wrap"[^>]*>([^<]*)</td>',
        html,
    )
    return {unescape(name): (unescape(old), unescape(new)) for name, old, new in rows}


def previewed(olga: Visitor, **fields: str) -> tuple[str, dict[str, str]]:
    """Ask what would change; return the page and the fields of its form."""
    answer = olga.submit(f"{CATALOG}/preview", **fields)
    assert answer.status_code == 200, answer.text
    assert_sound(answer)
    return answer.text, set_form(answer.text)


def set_form(html: str) -> dict[str, str]:
    """The fields of the form on a page of differences that applies them."""
    form = html.partition(f'action="{CATALOG}/set"')[2]
    hidden = re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)">', form)
    return {name: unescape(value) for name, value in hidden}


def applied(olga: Visitor, **fields: str) -> httpx.Response:
    """Change a model as the pages lead through it."""
    _, form = previewed(olga, **fields)
    return olga.submit(f"{CATALOG}/set", **form)


def removal(olga: Visitor, path: str) -> dict[str, str]:
    """The fields of the form at an address that removes an own entry."""
    return removal_form(olga.text(path))


def removal_form(html: str) -> dict[str, str]:
    """The fields of the form on a page that removes an own entry."""
    form = html.partition(f'action="{CATALOG}/remove"')[2].partition("</form>")[0]
    hidden = re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)">', form)
    assert {name for name, _ in hidden} == {"provider", "model", "seen"}
    return {name: unescape(value) for name, value in hidden}


def facts(olga: Visitor, name: str) -> dict[str, str]:
    html = olga.text(f"{MODEL}?name={name}")
    found = re.findall(r"<dt>([^<]*)</dt><dd[^>]*>([^<]*)</dd>", html)
    return {unescape(label): unescape(value) for label, value in found}


def charged(desk: Desk, visitor: Visitor) -> int:
    """What one chat with gpt-4o costs now."""
    before, rows = desk.books.settled_wallet(visitor.name), len(desk.books.rows(visitor.name))
    assert desk.ask(visitor.api_key) == 200
    wait_until(lambda: len(desk.books.rows(visitor.name)) == rows + 1)
    return before - desk.books.settled_wallet(visitor.name)


def test_the_list_is_searched_filtered_and_paged_through(olga: Visitor) -> None:
    first = names(olga.text(CATALOG))
    assert len(first) == 30
    assert names(olga.text(f"{CATALOG}?search=4O-MINI&provider=openai"))[0] == "openai/gpt-4o-mini"
    only = names(olga.text(f"{CATALOG}?provider=deepseek"))
    assert only
    assert all(name.startswith("deepseek/") for name in only)
    seen, html = first, olga.text(CATALOG)
    while following := re.search(r'rel="next" href="([^"]*)"', html):
        html = olga.text(unescape(following[1]))
        seen += names(html)
    shipped = json.loads((Path(__file__).parents[2] / "model_catalog.json").read_bytes())
    assert sorted(seen) == sorted(shipped["models"])
    previous = re.search(r'rel="prev" href="([^"]*)"', html)
    assert previous
    assert names(olga.text(unescape(previous[1]))) == seen[-len(names(html)) - 30 :][:30]
    for number in (99999, 10**9, 10**30):
        assert names(olga.text(f"{CATALOG}?page={number}")) == names(html)
    assert "No model matches." in olga.text(f"{CATALOG}?search=nothing-like-it")
    assert "No model matches." in olga.text(f"{CATALOG}?own=1")


def test_a_model_has_everything_that_its_price_depends_on(olga: Visitor) -> None:
    html = olga.text(f"{MODEL}?name=openai/gpt-6.1-sol")
    shipped = json.loads((Path(__file__).parents[2] / "model_catalog.json").read_bytes())
    entry = shipped["models"]["openai/gpt-6.1-sol"]
    for variant in entry["variants"]:
        assert " ".join(variant["when"]["service_tier"]) in html
    told = facts(olga, "openai/gpt-6.1-sol")
    assert told["Prices from"] == "the file that came with the program"
    assert told["Multiplier"] == "1"
    alias = next(e["aliases"][0] for e in shipped["models"].values() if e.get("aliases"))
    provider = next(k.split("/")[0] for k, e in shipped["models"].items() if e.get("aliases"))
    assert alias in facts(olga, f"{provider}/{alias}")["Also called"]
    assert olga.get(f"{MODEL}?name=openai/nothing").status_code == 404
    assert olga.get(MODEL).status_code == 404


def test_a_change_is_shown_first_and_priced_by_at_once(own_desk: Desk, olga: Visitor) -> None:
    before = charged(own_desk, olga)
    acts = acts_count(own_desk)
    html, form = previewed(olga, **GPT, in_price="5", multiplier="3")
    assert differences(html) == {"in_price": ("2.50", "5.00"), "multiplier": ("1", "3")}
    assert acts_count(own_desk) == acts
    assert charged(own_desk, olga) == before
    answer = olga.submit(f"{CATALOG}/set", **form)
    assert (answer.status_code, answer.headers["location"]) == (
        303,
        f"{MODEL}?name=openai%2Fgpt-4o&said=set",
    )
    assert "The price is applied" in olga.text(f"{MODEL}?name=openai%2Fgpt-4o&said=set")
    row_before = own_desk.books.rows(olga.name)[0]
    after = charged(own_desk, olga)
    row_after = own_desk.books.rows(olga.name)[-1]
    lines = {line["usage_class"]: line for line in json.loads(row_after["receipt"])}
    old = {line["usage_class"]: line for line in json.loads(row_before["receipt"])}
    assert lines["input"]["rate"] == 2 * old["input"]["rate"] == 5_000_000_000
    assert lines["output"]["rate"] == old["output"]["rate"]
    rated = sum(line["quantity"] * line["rate"] for line in lines.values())
    assert after == -(-3 * rated // 1_000_000)
    actor = f"dashboard:{olga.name}"
    assert last_act(own_desk) == (
        actor,
        "catalog set",
        "openai gpt-4o --in-price 5 --multiplier 3",
    )
    shown = own_desk.json("catalog", "show", "openai/gpt-4o")
    assert (shown["in_price"], shown["multiplier"], shown["own"]) == ("5.00", "3", True)


def test_an_override_is_told_of_and_removed(own_desk: Desk, olga: Visitor) -> None:
    before = charged(own_desk, olga)
    assert applied(olga, **GPT, out_price="20").status_code == 303
    html = olga.text(f"{MODEL}?name=openai/gpt-4o")
    assert differences(html) == {"out_price": ("10.00", "20.00")}
    assert f"set by dashboard:{olga.name} on" in facts(olga, "openai/gpt-4o")["Prices from"]
    assert names(olga.text(f"{CATALOG}?own=1")) == ["openai/gpt-4o"]
    assert charged(own_desk, olga) > before
    form = removal(olga, f"{MODEL}?name=openai/gpt-4o")
    answer = olga.submit(f"{CATALOG}/remove", **form)
    assert answer.status_code == 303
    led = olga.text(answer.headers["location"])
    assert "The override is removed" in led
    assert charged(own_desk, olga) == before
    assert last_act(own_desk)[1:] == ("catalog set", "openai gpt-4o --remove")
    assert names(olga.text(f"{CATALOG}?own=1")) == []


def test_a_jump_is_refused_unless_it_is_meant(own_desk: Desk, olga: Visitor) -> None:
    html, form = previewed(olga, **GPT, in_price="250")
    assert ">jump</span>" in html
    assert 'name="jumps"' in html
    acts = acts_count(own_desk)
    refused = olga.submit(f"{CATALOG}/set", **form)
    assert refused.status_code == 422
    assert "more than 20 times" in refused.text
    assert acts_count(own_desk) == acts
    assert facts(olga, "openai/gpt-4o")["Prices from"].startswith("the file")
    assert olga.submit(f"{CATALOG}/set", **form, jumps="1").status_code == 303
    assert 'name="jumps"' not in previewed(olga, **GPT, in_price="200")[0]


def test_what_was_seen_is_what_is_done(own_desk: Desk, olga: Visitor) -> None:
    _, form = previewed(olga, **GPT, in_price="3")
    own_desk.run("catalog", "set", "openai", "gpt-4o", "--in-price", "4")
    refused = olga.submit(f"{CATALOG}/set", **form)
    assert refused.status_code == 422
    assert "changed meanwhile" in refused.text
    assert differences(refused.text) == {"in_price": ("4.00", "3.00")}
    assert own_desk.json("catalog", "show", "openai/gpt-4o")["in_price"] == "4.00"
    assert olga.submit(f"{CATALOG}/set", **{**form, "seen": ""}).status_code == 422


def test_a_refusal_names_no_command_for_what_the_page_does_itself(
    own_desk: Desk, olga: Visitor
) -> None:
    own_desk.run("catalog", "set", "openai", "gpt-4o", "--alias", "four-o")
    form = {"provider": "openai", "in_price": "5"}
    for path in ("preview", "set"):
        told = olga.submit(f"{CATALOG}/{path}", **form, model="four-o")
        assert (told.status_code, "Set that one.</p>" in told.text) == (422, True)
        assert "llmproxy " not in told.text
    assert olga.submit(f"{CATALOG}/preview", **form, model="gpt-4o").status_code == 200


def test_everything_that_the_command_sets_can_be_set(own_desk: Desk, olga: Visitor) -> None:
    fields = {
        "in_price": "1",
        "out_price": "2",
        "cache_read": "0.5",
        "cache_write": "1.5",
        "cache_write_1h": "2.5",
        "web_search_1k": "10",
        "multiplier": "1.1",
        "max_input_tokens": "1000",
        "max_output_tokens": "500",
        "reasoning": "yes",
        "mode": "completion",
        "aliases": "one, two",
        "flat": "1",
    }
    new = {"provider": "ollama", "model": "meta/llama3.2:1b"}
    answer = olga.submit(f"{CATALOG}/preview", **new, multiplier="2")
    assert (answer.status_code, "give both prices" in answer.text) == (422, True)
    html, form = previewed(olga, **new, **fields)
    assert "A new model" in html
    assert olga.submit(f"{CATALOG}/set", **form).status_code == 303
    shown = own_desk.json("catalog", "show", "ollama/meta/llama3.2:1b")
    assert shown["aliases"] == ["one", "two"]
    assert shown["prices"] == {
        "cache_read": "0.50",
        "cache_write": "1.50",
        "cache_write_1h": "2.50",
        "web_search_1k": "10.00",
    }
    told = (shown["mode"], shown["reasoning"], shown["max_input_tokens"], shown["multiplier"])
    assert told == ("completion", True, 1000, "1.1")
    assert last_act(own_desk)[2] == (
        "ollama meta/llama3.2:1b --in-price 1 --out-price 2 --multiplier 1.1 --mode completion "
        "--max-input-tokens 1000 --max-output-tokens 500 --reasoning --cache-read 0.5 "
        "--cache-write 1.5 --cache-write-1h 2.5 --web-search-1k 10 --alias one --alias two --flat"
    )
    assert "does not have this model" in olga.text(f"{MODEL}?name=ollama/meta/llama3.2:1b")
    # What the audit log says is a command that does the same.
    own_desk.run("catalog", "set", *last_act(own_desk)[2].split())
    assert own_desk.json("catalog", "show", "ollama/meta/llama3.2:1b") == shown
    form = removal(olga, f"{MODEL}?name=ollama/meta/llama3.2:1b")
    gone = olga.submit(f"{CATALOG}/remove", **form)
    assert gone.headers["location"] == f"{CATALOG}?said=gone"
    assert "no price any more" in olga.text(f"{CATALOG}?said=gone")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "Fill in what is to be changed"),
        ({"provider": "No!", "in_price": "1"}, "Name the provider"),
        ({"model": "a b", "in_price": "1"}, "Name the model"),
        ({"in_price": "cheap"}, "in_price"),
        ({"in_price": "-1"}, "in_price"),
        ({"in_price": "1" * 61}, "too long"),
        ({"in_price": "2.5"}, "change nothing"),
        ({"multiplier": "1001"}, "multiplier"),
        ({"max_input_tokens": "0"}, "whole number"),
        ({"reasoning": "maybe"}, "Choose"),
        ({"mode": "Not A Word"}, "mode"),
        ({"aliases": "gpt-4o-mini"}, "belongs to openai/gpt-4o-mini"),
        ({"aliases": "a b"}, "Further names"),
        ({"model": "chatgpt-4o-latest-none"}, "Fill in"),
    ],
)
def test_what_cannot_be_is_told(
    own_desk: Desk, olga: Visitor, fields: dict[str, str], said: str
) -> None:
    acts = acts_count(own_desk)
    for path in ("preview", "set"):
        answer = olga.submit(f"{CATALOG}/{path}", **{**GPT, **fields})
        assert answer.status_code == 422
        assert_sound(answer)
        assert (said in unescape(answer.text), "llmproxy " in answer.text) == (True, False)
    assert acts_count(own_desk) == acts


@pytest.mark.parametrize("text", XSS)
def test_whatever_is_written_is_text(own_desk: Desk, olga: Visitor, text: str) -> None:
    everywhere = dict.fromkeys(("in_price", "mode", "aliases", "multiplier", "reasoning"), text)
    pages = [
        olga.submit(f"{CATALOG}/preview", **{"provider": text, "model": text, **everywhere}),
        olga.submit(f"{CATALOG}/preview", **GPT, mode=text),
        olga.submit(f"{CATALOG}/set", **GPT, **everywhere, seen=text),
        olga.submit(f"{CATALOG}/remove", provider=text, model=text),
        olga.get(CATALOG, params={"search": text, "provider": text, "own": text, "page": text}),
    ]
    plain = re.sub(r"\s", "", text)
    with own_desk.books.write() as tx:  # names that no command would take
        tx.execute(
            """INSERT INTO catalog_overrides(provider, model, entry, actor, updated_at_ms)
               VALUES('openai', ?, '{"in_price": "1", "out_price": "2"}', ?, 0),
                     (?, 'x', '{"in_price": 1}', ?, 0)""",
            (plain, text, text, text),
        )
    named = {"name": f"openai/{plain}"}
    wait_until(lambda: olga.get(MODEL, params=named).status_code == 200)
    pages += [
        olga.get(CATALOG, params={"search": plain}),
        olga.get(MODEL, params=named),
        olga.submit(f"{CATALOG}/preview", provider="openai", model=plain, in_price="2"),
    ]
    for answer in pages:
        assert answer.status_code in {200, 422}
        assert_sound(answer)
    assert plain in unescape(pages[-2].text)
    assert "cannot be used" in pages[-3].text


@pytest.fixture
def crowded_desk(tmp_path: Path) -> Iterator[Desk]:
    """A dashboard whose catalog has a thousand models with the longest names there may be."""
    prices: dict[str, Any] = {"in_price": "0.123456789", "out_price": "0.123456789"}
    variants = [{"when": {"service_tier": [f"tier-{n}"]}, **prices} for n in range(40)]
    models = {
        f"openai/{number:04d}" + '&"' * 98: {**prices, "aliases": [f"{number}" + "x" * 190]}
        for number in range(1000)
    }
    models["openai/many"] = {**prices, "variants": variants, "aliases": ["y" * 200]}
    head = {"schema": 1, "currency": "USD", "unit": "per 1M tokens", "updated": "2026-11-01"}
    (tmp_path / "catalog.json").write_text(json.dumps({**head, "models": models}))
    environ = {"LLMPROXY_CATALOG_FILE": str(tmp_path / "catalog.json")}
    with running_site(tmp_path / "home", environ) as site, Desk(site) as desk:
        site.stub.handle = either
        yield desk


def test_no_list_of_models_is_long(crowded_desk: Desk) -> None:
    olga = operator(crowded_desk)
    for path in (CATALOG, f"{CATALOG}?page=3", f"{MODEL}?name=openai/many"):
        answer = olga.get(path)
        assert answer.status_code == 200
        assert_sound(answer)
    assert len(names(olga.text(CATALOG))) == 30


def test_only_operators_make_the_file_be_read_and_are_told_if_it_is_broken(
    crowded_desk: Desk, tmp_path: Path
) -> None:
    """One that cannot be read tells who has tried to."""
    nobody, ann, olga = crowded_desk.visitor(), crowded_desk.signed_in(), operator(crowded_desk)
    nobody.cookies.set("llmproxy-session", "A" * 43)
    (tmp_path / "catalog.json").write_text("{")
    for path in ("preview", "set", "remove"):
        fields = {**GPT, "in_price": "1.75"}
        assert nobody.submit(f"{CATALOG}/{path}", **fields).status_code == 401
        assert ann.submit(f"{CATALOG}/{path}", **fields).status_code == 403
        told = olga.submit(f"{CATALOG}/{path}", **fields)
        assert (told.status_code, "catalog.json" in told.text) == (422, True)
        assert 'value="1.75"' in told.text
        assert_sound(told)
    assert "1,001 models" in olga.text(CATALOG)


def test_the_file_is_read_once_for_all_and_again_when_it_is_another(tmp_path: Path) -> None:
    path = tmp_path / "catalog.json"
    text = (Path(__file__).parents[2] / "model_catalog.json").read_text("utf-8")
    path.write_text(text)
    live = LiveCatalog(lambda: path)

    async def read(times: int) -> list[Document]:
        return await asyncio.gather(*(live.read_document() for _ in range(times)))

    first = asyncio.run(read(4))
    assert {id(document) for document in first} == {id(first[0])}
    other = tmp_path / "other.json"
    other.write_text(text.replace('"updated": "20', '"updated": "19', 1))
    other.replace(path)
    (second,) = asyncio.run(read(1))
    assert second.updated == first[0].updated.replace("20", "19", 1)
    path.unlink()
    with pytest.raises(CatalogError, match="cannot be read"):
        asyncio.run(read(1))
