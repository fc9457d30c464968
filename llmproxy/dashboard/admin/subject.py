"""Owns acting on one thing that has a page of its own, such as a user: its forms and buttons.

What is done leads back to the page, which says so. What cannot be done shows the page again, with
the reason above it and with what was typed into the form; where that was based on something that is
not so any more, with what is so now.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Generic, NamedTuple, TypeVar

from litestar import Request, Response

from llmproxy.dashboard.admin.words import TOLD
from llmproxy.dashboard.errors import StaleFormError
from llmproxy.dashboard.signed_in import SignedIn
from llmproxy.dashboard.site import Site

Key = TypeVar("Key")
Found = TypeVar("Found")


class Typed(NamedTuple):
    """What was typed into which form of a page, and what is wrong about it."""

    name: str
    form: Mapping[str, str]
    problem: str


class Subject(Generic[Key, Found]):
    """A kind of things, each with its page."""

    def __init__(
        self,
        site: Site,
        *,
        read: Callable[..., Found],
        show: Callable[[SignedIn, Found, str, Typed | None], Response[bytes]],
        address: Callable[[Key], str],
        said: Mapping[str, str],
    ) -> None:
        """Take how the page is made.

        Args:
            site: what all pages share.
            read: `f(tx, signed_in, key)` returns what a page shows.
            show: makes a page of that, of what was done last, and of what was typed in vain.
            address: returns where the page of a thing is, below the dashboard's own address.
            said: what a page says after an act, by the act's word.
        """
        self._site = site
        self._read = read
        self._show = show
        self._address = address
        self._said = said

    async def page(self, request: Request[Any, Any, Any], key: Key) -> Response[bytes]:
        """Return the page of a thing."""
        signed_in, found = await self._site.read_as_admin(request, self._read, key)
        said = self._said.get(request.query_params.get("said", ""), "")
        return self._show(signed_in, found, said, None)

    async def again(
        self, request: Request[Any, Any, Any], key: Key, typed: Typed
    ) -> Response[bytes]:
        """Return the page of a thing for which something could not be done."""
        signed_in, found = await self._site.read_as_admin(request, self._read, key)
        return self._show(signed_in, found, "", typed)

    def done(self, signed_in: SignedIn, key: Key, act: str) -> Response[bytes]:
        """Return the answer that leads back to the page, which says what was done."""
        address = self._address(key)
        mark = "&" if "?" in address else "?"
        return self._site.redirect(signed_in.visit, f"{address}{mark}said={act}")

    async def do(
        self,
        request: Request[Any, Any, Any],
        key: Key,
        act: str,
        form: Mapping[str, str],
        function: Callable[..., object],
        *args: object,
        write: Callable[..., Awaitable[tuple[SignedIn, object]]] | None = None,
    ) -> Response[bytes]:
        """Run `function(tx, signed_in, key, *args)` for an operator, and answer.

        `write` is one of the site's ways to write, `write_as_admin` unless it is given.
        """
        try:
            signed_in, _ = await (write or self._site.write_as_admin)(request, function, key, *args)
        except StaleFormError as error:
            return await self.again(request, key, Typed("", {}, error.without_command))
        except TOLD as error:
            return await self.again(request, key, Typed(act, form, error.without_command))
        return self.done(signed_in, key, act)
