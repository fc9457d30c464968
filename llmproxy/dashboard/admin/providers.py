"""Owns the operator's pages about providers: the list, and one with its keys and its history."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import quote

from litestar import HttpMethod, Request, Response, post, route
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from llmproxy import key_lists, key_pool
from llmproxy.dashboard.admin import provider_acts
from llmproxy.dashboard.admin.page import admin_page
from llmproxy.dashboard.admin.provider_check import Checked, check
from llmproxy.dashboard.admin.subject import Subject, Typed
from llmproxy.dashboard.admin.words import read_text
from llmproxy.dashboard.errors import MissingError
from llmproxy.dashboard.forms import read_form
from llmproxy.dashboard.key_tables import AskedPages, read_asked_pages
from llmproxy.dashboard.signed_in import SignedIn
from llmproxy.dashboard.site import Site
from llmproxy.key_lists import KeyPage
from llmproxy.key_pool import Provider, ProviderKey
from llmproxy.presets import PRESETS
from llmproxy.provider_events import ProviderEvent, Statuses, last_statuses, list_events
from llmproxy.provider_states import count_by_state, state_of
from llmproxy.storage.database import Tx

READING = [HttpMethod.GET, HttpMethod.HEAD]
TAB = "Providers"
PATH = "/admin/providers"
EVENTS_SHOWN = 20
PROVIDERS_SHOWN = 50
KEYS_SHOWN = 20
WHY_CHARS_MAX = 200
SAID = {
    "pause": "The provider is paused: requests to it get a 429. Running answers finish.",
    "resume": "Requests are let through again.",
    "add": "The key is stored, sealed. Back up the master key if this was the first one.",
    "enable": "The key is used again.",
    "disable": "The key is not used any more. Running answers finish.",
    "remove": "The key is removed.",
}
"""What a page says after an act, by the word in its address."""


class ProviderRow(NamedTuple):
    """A provider of the list."""

    provider: Provider
    state: str
    keys: str
    """How many are in each state, in words."""
    why: str
    """What keeps it, or some of its keys, from use."""


class ProviderList(NamedTuple):
    """All providers that are set up, and those that need only a key to be."""

    rows: list[ProviderRow]
    more: int
    """Those that are not shown."""
    presets: list[str]


class ProviderPage(NamedTuple):
    """One provider; `provider` is None while it needs a key to be set up."""

    name: str
    provider: Provider | None
    base_url: str
    dialect: str
    state: str
    keys: KeyPage[ProviderKey]
    pages: AskedPages
    """What was asked for; the last page where there are not so many."""
    statuses: Statuses
    events: list[ProviderEvent]


def read_list(tx: Tx, signed_in: SignedIn) -> ProviderList:
    """Return all providers."""
    del signed_in
    keys, providers = key_pool.keys_by_provider(tx), key_pool.list_providers(tx)
    shown, names = providers[:PROVIDERS_SHOWN], {provider.name for provider in providers}
    return ProviderList(
        rows=[_row(provider, keys.get(provider.name, [])) for provider in shown],
        more=len(providers) - len(shown),
        presets=[name for name in PRESETS if name not in names],
    )


def _row(provider: Provider, keys: list[ProviderKey]) -> ProviderRow:
    parts = [provider.paused_reason] if provider.paused_reason else []
    parts += [
        f"{key.name}: {key.state_reason}"
        for key in keys
        if key.state != "active" and key.state_reason
    ]
    why = "; ".join(parts)
    if len(why) > WHY_CHARS_MAX:
        why = why[: WHY_CHARS_MAX - 1] + "…"
    return ProviderRow(provider, state_of(provider, keys), count_by_state(keys), why)


def read_page(tx: Tx, signed_in: SignedIn, name: str, asked: AskedPages) -> ProviderPage:
    """Return one provider, with a page of its keys.

    Raises:
        MissingError: it is neither set up nor known.
    """
    del signed_in
    provider_acts.require_known(tx, name)
    provider = key_pool.find_provider(tx, name)
    keys = key_pool.list_provider_keys(tx, name)
    known = provider or PRESETS[name]
    page = key_lists.page_of(keys, asked.page, rows_max=KEYS_SHOWN)
    return ProviderPage(
        name=name,
        provider=provider,
        base_url=known.base_url,
        dialect=known.dialect,
        state=state_of(provider, keys),
        keys=page,
        pages=AskedPages(page.number),
        statuses=last_statuses(tx),
        events=list_events(tx, name, EVENTS_SHOWN),
    )


PageOf = Callable[[Request[Any, Any, Any]], Subject[str, ProviderPage]]
"""Returns the page of a provider that a request is about."""


def provider_pages(site: Site) -> list[HTTPRouteHandler]:
    """Return the routes of these pages."""

    @route(PATH, http_method=READING)
    async def list_providers(request: Request[Any, Any, Any]) -> Response[bytes]:
        signed_in, found = await site.read_as_admin(request, read_list)
        return admin_page(site, "admin_providers.html", signed_in, TAB, {"found": found})

    def subject(request: Request[Any, Any, Any]) -> Subject[str, ProviderPage]:
        # Forms have the page of keys in their address: they lead back to it.
        asked = AskedPages(read_asked_pages(request).page)
        return Subject[str, ProviderPage](
            site,
            read=partial(read_page, asked=asked),
            show=partial(_page, site),
            address=lambda name: f"{PATH}/{quote(name, safe='')}{asked.place}",
            said=SAID,
        )

    @route(PATH + "/{name:str}", http_method=READING)
    async def show_provider(
        request: Request[Any, Any, Any], name: FromPath[str]
    ) -> Response[bytes]:
        return await subject(request).page(request, name)

    acts = [*_provider_acts(site, subject), *_key_acts(site, subject)]
    return [list_providers, show_provider, *acts]


def _provider_acts(site: Site, subject: PageOf) -> list[HTTPRouteHandler]:
    @post(PATH + "/{name:str}/pause")
    async def pause(request: Request[Any, Any, Any], name: FromPath[str]) -> Response[bytes]:
        form = await read_form(request)
        return await subject(request).do(request, name, "pause", form, provider_acts.pause, form)

    @post(PATH + "/{name:str}/resume")
    async def resume(request: Request[Any, Any, Any], name: FromPath[str]) -> Response[bytes]:
        return await subject(request).do(request, name, "resume", {}, provider_acts.resume)

    @post(PATH + "/{name:str}/check")
    async def check_keys(request: Request[Any, Any, Any], name: FromPath[str]) -> Response[bytes]:
        asked = read_asked_pages(request)
        signed_in, found = await site.read_as_admin(request, read_page, name, asked)
        if found.provider is None:
            raise MissingError
        checked = await check(site.office, found.provider, found.keys.keys)
        return _page(site, signed_in, found, checked=checked)

    return [pause, resume, check_keys]


def _key_acts(site: Site, subject: PageOf) -> list[HTTPRouteHandler]:
    @post(PATH + "/{name:str}/keys")
    async def add_key(request: Request[Any, Any, Any], name: FromPath[str]) -> Response[bytes]:
        form = await read_form(request)
        wanted, paths = provider_acts.read_new_key(form), site.office.config.paths
        # Of what was typed the secret is not kept: it is in no page.
        kept, write = {"name": form.get("name", "")}, site.write_with_files_as_admin
        add, page = provider_acts.add_key, subject(request)
        return await page.do(request, name, "add", kept, add, wanted, paths, write=write)

    @post(PATH + "/{name:str}/keys/{key_id:int}/{act:str}")
    async def act_on_key(
        request: Request[Any, Any, Any],
        name: FromPath[str],
        key_id: FromPath[int],
        act: FromPath[str],
    ) -> Response[bytes]:
        form = await read_form(request)
        return await subject(request).do(request, name, act, form, _act_on_key, key_id, act, form)

    return [add_key, act_on_key]


def _act_on_key(
    tx: Tx, signed_in: SignedIn, name: str, key_id: int, act: str, form: Mapping[str, str]
) -> None:
    if act == "remove":
        provider_acts.remove_key(tx, signed_in, name, key_id)
    elif act in provider_acts.STATES:
        reason = read_text(form, "reason", "Reason") if act == "disable" else ""
        provider_acts.set_key_state(tx, signed_in, name, key_id, act, reason)
    else:
        raise MissingError


def _page(
    site: Site,
    signed_in: SignedIn,
    found: ProviderPage,
    said: str = "",
    typed: Typed | None = None,
    checked: list[Checked] | None = None,
) -> Response[bytes]:
    values = {
        "found": found,
        "said": said,
        "typed": typed or Typed("", {}, ""),
        "checked": checked,
        "is_left_alone": site.office.is_left_alone(found.name),
    }
    status = 422 if typed else 200
    return admin_page(site, "admin_provider.html", signed_in, TAB, values, status=status)
