"""Owns the pages of a signed-in user: the Overview, and their API keys."""

import logging
from typing import Any

from litestar import HttpMethod, Request, Response, post, route
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from llmproxy.client_settings import allowed_settings
from llmproxy.dashboard import key_form, keys
from llmproxy.dashboard.bars import CHART_HEIGHT
from llmproxy.dashboard.errors import FormError
from llmproxy.dashboard.forms import read_form, read_query
from llmproxy.dashboard.key_tables import read_asked_pages
from llmproxy.dashboard.overview import Live, read_live, read_overview
from llmproxy.dashboard.signed_in import SignedIn
from llmproxy.dashboard.site import Site
from llmproxy.errors import RefusedError
from llmproxy.limits import Limits

READING = [HttpMethod.GET, HttpMethod.HEAD]
KEYS = "/settings/api-keys"
RUNNING_AGAIN_S = 2
AGAIN_S = 10
"""How soon an open Overview asks again what has changed."""
SHOWN_CLIENTS = (
    *("shell", "curl", "openai-python", "openai-node", "langchain", "claude-code", "codex"),
)
"""Whose settings stand on the page of a new key; those of all others are in the guide."""

_log = logging.getLogger("llmproxy.dashboard")


def user_routes(site: Site) -> list[HTTPRouteHandler]:
    """Return the routes of these pages."""

    @route("/", http_method=READING)
    async def overview(request: Request[Any, Any, Any]) -> Response[bytes]:
        signed_in, found = await site.read_as_user(request, read_overview)
        values = {"page": "overview", "overview": found, "height": CHART_HEIGHT}
        values |= _live_values(signed_in, found.live, is_fragment=False)
        return site.page("overview.html", signed_in.visit, values, signed_in=signed_in)

    @route("/live", http_method=READING)
    async def live(request: Request[Any, Any, Any]) -> Response[bytes]:
        signed_in, found = await site.read_as_user(request, read_live)
        if read_query(request).get("seen") == found.digest:
            return site.unchanged()
        values = _live_values(signed_in, found, is_fragment=True)
        return site.page("live.html", signed_in.visit, values, signed_in=signed_in)

    @route("/settings", http_method=READING)
    async def settings(request: Request[Any, Any, Any]) -> Response[bytes]:
        return site.redirect(site.visit(request), KEYS)

    return [overview, live, settings, *_key_pages(site), *_key_actions(site)]


def _live_values(signed_in: SignedIn, found: Live, *, is_fragment: bool) -> dict[str, object]:
    return {
        "wallet": signed_in.user,
        "live": found,
        "is_fragment": is_fragment,
        "again_s": RUNNING_AGAIN_S if found.is_running else AGAIN_S,
    }


def _key_pages(site: Site) -> list[HTTPRouteHandler]:
    @route("/settings/api-keys", http_method=READING)
    async def list_keys(request: Request[Any, Any, Any]) -> Response[bytes]:
        asked = read_asked_pages(request)
        signed_in, found = await site.read_as_user(request, keys.read_keys, asked)
        values = {"page": "keys", "keys": found}
        return site.page("keys.html", signed_in.visit, values, signed_in=signed_in)

    @route("/settings/api-keys/new", http_method=READING)
    async def new_key(request: Request[Any, Any, Any]) -> Response[bytes]:
        signed_in = await site.require_user(request)
        return _key_form(site, signed_in, {}, "")

    @route("/settings/api-keys/{key_id:int}", http_method=READING)
    async def show_key(request: Request[Any, Any, Any], key_id: FromPath[int]) -> Response[bytes]:
        answer_s_max = site.office.config.settings.total_timeout_s
        signed_in, found = await site.read_as_user(request, keys.read_key, key_id, answer_s_max)
        place = read_asked_pages(request).place
        values = {"page": "keys", "found": found, "overlaps": key_form.OVERLAPS, "place": place}
        return site.page("key.html", signed_in.visit, values, signed_in=signed_in)

    return [list_keys, new_key, show_key]


def _key_actions(site: Site) -> list[HTTPRouteHandler]:
    @post("/settings/api-keys")
    async def create_key(request: Request[Any, Any, Any]) -> Response[bytes]:
        form = await read_form(request)
        try:
            wanted = key_form.read_new_key(form, site.catalog(), now_ms=site.clock.now_ms())
            signed_in, secret = await site.write_as_user(request, keys.create_key, wanted)
        except (FormError, RefusedError) as error:
            signed_in = await site.require_user(request)
            return _key_form(site, signed_in, form, str(error))
        _log.info("%s has made the API key %r", signed_in.user.name, wanted.name)
        limits = Limits(id=0, **wanted.limits)  # type: ignore[arg-type]
        return _key_made(site, signed_in, wanted.name, secret, limits)

    @post("/settings/api-keys/{key_id:int}/rotate")
    async def rotate_key(request: Request[Any, Any, Any], key_id: FromPath[int]) -> Response[bytes]:
        overlap_ms = key_form.read_overlap(await read_form(request))
        signed_in, (replaced, secret) = await site.write_as_user(
            request, keys.rotate_key, key_id, overlap_ms
        )
        _log.info("%s has rotated the API key %r", signed_in.user.name, replaced.name)
        # Nothing is asked for any more: the new one can be seen on this page alone.
        return _key_made(site, signed_in, replaced.name, secret, replaced.limits)

    @post("/settings/api-keys/{key_id:int}/revoke")
    async def revoke_key(request: Request[Any, Any, Any], key_id: FromPath[int]) -> Response[bytes]:
        signed_in, name = await site.write_as_user(request, keys.revoke_key, key_id)
        _log.info("%s has revoked the API key %r", signed_in.user.name, name)
        return site.redirect(signed_in.visit, KEYS + read_asked_pages(request).place)

    return [create_key, rotate_key, revoke_key]


def _key_form(
    site: Site, signed_in: SignedIn, form: dict[str, str], problem: str
) -> Response[bytes]:
    values = {
        "page": "keys",
        "form": form,
        "problem": problem,
        "lives": key_form.LIVES,
        "counts": key_form.COUNTS,
        "amounts": key_form.AMOUNTS,
        "lists": key_form.LISTS,
        "hints": key_form.LIST_HINTS,
    }
    status = 422 if problem else 200
    return site.page("key_new.html", signed_in.visit, values, status=status, signed_in=signed_in)


def _key_made(
    site: Site, signed_in: SignedIn, name: str, secret: str, limits: Limits | None
) -> Response[bytes]:
    """Return the one page on which an API key can be seen."""
    base = signed_in.visit.base_url
    values = {
        "page": "keys",
        "name": name,
        "secret": secret,
        "base": base,
        "settings": allowed_settings(SHOWN_CLIENTS, base, secret, limits, site.catalog()),
        "has_anthropic": limits is None or limits.allows_provider("anthropic"),
    }
    return site.page("key_made.html", signed_in.visit, values, signed_in=signed_in)
