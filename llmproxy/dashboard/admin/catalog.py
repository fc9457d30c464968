"""Owns the pages of the catalog: the list, a model with all its prices, and changes of these.

A change is shown first, field by field and with what last week's requests would have cost by it,
and done when that is confirmed. It counts for requests from before the confirming page is answered.
"""

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlencode

from litestar import HttpMethod, Request, Response, post, route
from litestar.handlers import HTTPRouteHandler

from llmproxy import catalog_editing
from llmproxy.catalog import Catalog, further_rates
from llmproxy.catalog_changes import JUMP_MAX
from llmproxy.catalog_editing import Plan
from llmproxy.catalog_overrides import read_overrides, with_overrides
from llmproxy.catalog_parser import Document
from llmproxy.dashboard.admin import catalog_form
from llmproxy.dashboard.admin.catalog_form import read_model, read_wanted
from llmproxy.dashboard.admin.catalog_rerating import USERS_SHOWN_MAX, WeekByPrice
from llmproxy.dashboard.admin.catalog_views import (
    TEXT_CHARS_MAX,
    Found,
    Wanted,
    find_details,
    find_models,
    read_filter,
    read_text,
)
from llmproxy.dashboard.admin.page import admin_page
from llmproxy.dashboard.errors import FormError, MissingError, StaleFormError
from llmproxy.dashboard.forms import read_form
from llmproxy.dashboard.signed_in import SignedIn
from llmproxy.dashboard.site import Site
from llmproxy.errors import CatalogError, NotFoundError, RefusedError
from llmproxy.rerating import DAYS
from llmproxy.storage.database import Tx

READING = [HttpMethod.GET, HttpMethod.HEAD]
CATALOG = "/admin/catalog"
MODEL = f"{CATALOG}/model"
TAB = "Catalog"
BROKEN_SHOWN = 10
PROBLEM_CHARS_MAX = 1000
SAID = {
    "set": "The price is applied: it counts for the next request.",
    "remove": "The override is removed: what the catalog file says counts again.",
    "gone": "Your entry is removed: the model has no price any more, and is refused.",
}
"""What a page says after an act, by the word in its address."""
_NOT_SO = (FormError, CatalogError, RefusedError)
"""What a form may be refused for, with a message for the operator."""


class Own(NamedTuple):
    """By whom and when an own entry was set."""

    actor: str
    updated_at_ms: int


class Broken(NamedTuple):
    """An own entry that cannot be used."""

    provider: str
    model: str
    why: str
    seen: str
    """By what a form knows that it is still the same."""


def catalog_routes(site: Site) -> list[HTTPRouteHandler]:
    """Return the routes of these pages."""

    @route("/admin/catalog", http_method=READING)
    async def show_list(request: Request[Any, Any, Any]) -> Response[bytes]:
        return await _list_page(site, request, said=SAID.get(read_text(request, "said"), ""))

    @route("/admin/catalog/model", http_method=READING)
    async def show_model(request: Request[Any, Any, Any]) -> Response[bytes]:
        provider, _, name = read_text(request, "name").partition("/")
        said = SAID.get(read_text(request, "said"), "")
        return await _model_page(site, request, provider, name, said=said)

    @route("/admin/catalog/new", http_method=READING)
    async def new_model(request: Request[Any, Any, Any]) -> Response[bytes]:
        signed_in = await site.require_admin(request)
        return _with_form(site, signed_in, "admin_model_new.html", {}, {"problem": ""})

    return [show_list, show_model, new_model, *_change_routes(site)]


def _change_routes(site: Site) -> list[HTTPRouteHandler]:
    week = WeekByPrice(site)

    async def preview(
        request: Request[Any, Any, Any], document: Document, form: dict[str, str], problem: str = ""
    ) -> Response[bytes]:
        signed_in, (plan, catalog) = await site.read_as_admin(request, _look, document, form)
        rated = await week.rate(request, catalog, plan.after)
        return _preview(site, signed_in, plan, form, {"week": rated, "problem": problem})

    async def apply(
        request: Request[Any, Any, Any], document: Document, form: dict[str, str]
    ) -> Response[bytes]:
        try:
            signed_in, plan = await site.write_as_admin(request, _carry_out, document, form)
        except _NOT_SO as error:
            # What was seen is not what would be done now: it is shown again, if it can be done.
            return await preview(request, document, form, error.without_command)
        address = _address(plan.after.provider, plan.after.id)
        return site.redirect(signed_in.visit, f"{address}&said=set")

    async def remove(
        request: Request[Any, Any, Any], document: Document, form: dict[str, str]
    ) -> Response[bytes]:
        try:
            signed_in, is_left = await site.write_as_admin(request, _take_back, document, form)
        except (StaleFormError, NotFoundError) as error:
            problem = error.without_command
            try:
                return await _model_page(site, request, *read_model(form), problem=problem)
            except MissingError:  # it has no price: the list has its entry, if there is one
                return await _list_page(site, request, problem=problem)
        path = f"{CATALOG}?said=gone"
        if is_left:
            path = f"{_address(form['provider'], form['model'])}&said=remove"
        return site.redirect(signed_in.visit, path)

    return [
        _form_route(site, "/admin/catalog/preview", preview),
        _form_route(site, "/admin/catalog/set", apply),
        _form_route(site, "/admin/catalog/remove", remove),
    ]


def _form_route(
    site: Site,
    path: str,
    answer: Callable[
        [Request[Any, Any, Any], Document, dict[str, str]], Awaitable[Response[bytes]]
    ],
) -> HTTPRouteHandler:
    """Return the route of a form; what it cannot do is told above the form, as it was typed.

    `answer` gets the catalog file with its entries as they are written. Only operators make us
    read it.
    """

    @post(path)
    async def take_form(request: Request[Any, Any, Any]) -> Response[bytes]:
        signed_in = await site.require_admin(request)
        form = await read_form(request)
        try:
            return await answer(request, await site.office.catalog.read_document(), form)
        except _NOT_SO as error:
            values = {"problem": error.without_command[:PROBLEM_CHARS_MAX]}
            template = "admin_model_new.html"
            return _with_form(site, signed_in, template, form, values, status=422)

    return take_form


# --- what is read and written --------------------------------------------------------------------


def _read_list(
    tx: Tx, signed_in: SignedIn, catalog: Catalog, wanted: Wanted
) -> tuple[Found, list[str], list[Broken]]:
    """Return a page of models, all providers, and own entries that cannot be used.

    In the reader's thread: to search thousands of models takes long for the loop.
    """
    del signed_in
    providers = sorted({model.provider for model in catalog.models()})
    return find_models(catalog, wanted), providers, _read_broken(tx)


def _read_broken(tx: Tx) -> list[Broken]:
    """Return own entries that cannot be used."""
    broken = list(read_overrides(tx).broken.items())[:BROKEN_SHOWN]
    return [Broken(*name, why, _fingerprint(why)) for name, why in broken]


def _read_own(tx: Tx, signed_in: SignedIn, provider: str, model_id: str) -> Own | None:
    del signed_in
    row = tx.execute(
        "SELECT actor, updated_at_ms FROM catalog_overrides WHERE provider = ? AND model = ?",
        (provider, model_id),
    ).fetchone()
    return None if row is None else Own(*row)


def _plan(tx: Tx, signed_in: SignedIn, document: Document, form: Mapping[str, str]) -> Plan:
    del signed_in
    wanted = read_wanted(form)
    plan = catalog_editing.make_plan(tx, document, *wanted)
    if not plan.changes:
        raise RefusedError("That would change nothing: it is so already.")
    return plan


def _look(
    tx: Tx, signed_in: SignedIn, document: Document, form: Mapping[str, str]
) -> tuple[Plan, Catalog]:
    """Return what a form comes to, and the catalog that would be in force by it."""
    plan = _plan(tx, signed_in, document, form)
    return plan, catalog_editing.afterwards(tx, document, plan)


def _carry_out(tx: Tx, signed_in: SignedIn, document: Document, form: Mapping[str, str]) -> Plan:
    plan = _plan(tx, signed_in, document, form)
    if form.get("seen") != _fingerprint(plan.changes):
        raise RefusedError("The catalog has changed meanwhile. Look at the differences again.")
    if not form.get("jumps"):
        plan.refuse_jumps("If that is meant, say so below.")
    catalog_editing.carry_out(
        tx, plan, actor=f"dashboard:{signed_in.user.name}", now_ms=signed_in.now_ms
    )
    signed_in.note(tx, "catalog set", catalog_editing.in_words(*read_wanted(form)))
    return plan


def _take_back(tx: Tx, signed_in: SignedIn, document: Document, form: Mapping[str, str]) -> bool:
    """Remove an own entry; say whether the model is still there.

    Raises:
        StaleFormError: the entry, or what would count without it, is not what the form showed.
        NotFoundError: there is none.
    """
    provider, model_id = read_model(form)
    is_there = _read_own(tx, signed_in, provider, model_id) is not None
    if is_there and form.get("seen") != _seen_now(tx, document, provider, model_id):
        raise StaleFormError(
            f"The prices of {provider}/{model_id} have changed since this form was shown. Look at "
            "them again before you remove the override."
        )
    model = catalog_editing.take_back(tx, document, provider, model_id)
    words = catalog_editing.in_words(provider, model_id, catalog_editing.Edit({}, {}))
    signed_in.note(tx, "catalog set", f"{words} --remove")
    return model is not None


def _seen_now(tx: Tx, document: Document, provider: str, model_id: str) -> str:
    """Return what a form that removes an own entry has if it was shown with what there is now."""
    overrides, file = read_overrides(tx), document.catalog()
    why = overrides.broken.get((provider, model_id))
    if why is not None:
        return _fingerprint(why)
    own = with_overrides(file, overrides).find(provider, model_id)
    return _fingerprint((own, file.find(provider, model_id)))


def _fingerprint(shown: object) -> str:
    """Return what tells one thing that is shown from another, such as a set of differences."""
    return hashlib.sha256(repr(shown).encode()).hexdigest()[:16]


# --- what is shown -------------------------------------------------------------------------------


def _query(wanted: Wanted, page: int | None) -> str:
    own = "1" if wanted.is_own else ""
    found = {"search": wanted.search, "provider": wanted.provider, "own": own, "page": page}
    return urlencode({name: value for name, value in found.items() if value})


def _address(provider: str, model_id: str) -> str:
    return f"{MODEL}?{urlencode({'name': f'{provider}/{model_id}'})}"


async def _list_page(
    site: Site, request: Request[Any, Any, Any], *, said: str = "", problem: str = ""
) -> Response[bytes]:
    """Return the list of models that an address asks for."""
    wanted, catalog = read_filter(request), site.catalog()
    signed_in, (found, providers, broken) = await site.read_as_admin(
        request, _read_list, catalog, wanted
    )
    values = {
        "wanted": wanted,
        "found": found,
        "catalog": catalog,
        "path": site.office.catalog.path,
        "providers": providers,
        "broken": broken,
        "query": _query(wanted, None),
        "previous": _query(wanted, found.page - 1) if found.page > 1 else None,
        "following": _query(wanted, found.page + 1) if found.has_more else None,
        "chars_max": TEXT_CHARS_MAX,
        "said": said,
        "problem": problem,
    }
    status = 422 if problem else 200
    return admin_page(site, "admin_catalog.html", signed_in, TAB, values, status=status)


async def _model_page(
    site: Site,
    request: Request[Any, Any, Any],
    provider: str,
    name: str,
    *,
    said: str = "",
    problem: str = "",
) -> Response[bytes]:
    """Return the page of a model, found by its id or an alias.

    Raises:
        MissingError: it has no price.
    """
    details = find_details(site.office.catalog, provider, name)
    model_id = name if details is None else details.model.id
    signed_in, own = await site.read_as_admin(request, _read_own, provider, model_id)
    if details is None:
        raise MissingError
    values = {
        "details": details,
        "own": own,
        "seen": _fingerprint((details.model, details.file_model)),
        "further": further_rates(details.model.prices.rates),
        "path": site.office.catalog.path,
        "said": said,
        "problem": problem,
    }
    status = 422 if problem else 200
    return _with_form(site, signed_in, "admin_model.html", {}, values, status=status)


def _with_form(
    site: Site,
    signed_in: SignedIn,
    template: str,
    form: Mapping[str, str],
    values: Mapping[str, object],
    *,
    status: int = 200,
) -> Response[bytes]:
    framed = {**values, "form": form, "words": catalog_form}
    return admin_page(site, template, signed_in, TAB, framed, status=status)


def _preview(
    site: Site,
    signed_in: SignedIn,
    plan: Plan,
    form: Mapping[str, str],
    shown: Mapping[str, object],
) -> Response[bytes]:
    values = {
        **shown,
        "plan": plan,
        "seen": _fingerprint(plan.changes),
        "has_jumps": plan.before is not None and any(field.is_jump for field in plan.changes),
        "jump_max": JUMP_MAX,
        "days": DAYS,
        "users_max": USERS_SHOWN_MAX,
    }
    status = 422 if shown["problem"] else 200
    template = "admin_model_preview.html"
    return _with_form(site, signed_in, template, form, values, status=status)
