"""Owns what all pages share: templates, reading and writing for a signed-in user, and answers.

A page reads in a thread of its own, beside the serving loop's writer; what it changes goes through
the writer, by the functions that the command line uses. Every answer leaves with the same headers.
"""

import asyncio
import hashlib
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from litestar import Request, Response

from llmproxy import sessions
from llmproxy.catalog import Catalog
from llmproxy.clock import Clock
from llmproxy.dashboard import formats
from llmproxy.dashboard.address import PREFIX
from llmproxy.dashboard.admin.office import Office
from llmproxy.dashboard.errors import BusyError, NotSignedInError
from llmproxy.dashboard.kept_tasks import KeptTasks
from llmproxy.dashboard.session_users import SessionUsers
from llmproxy.dashboard.sign_in_attempts import SignInAttempts
from llmproxy.dashboard.signed_in import SignedIn, for_admins, noted, run_as_user, write_beside
from llmproxy.dashboard.slots import Slots
from llmproxy.dashboard.visit import ReachedAt, Visit, read_visit
from llmproxy.storage.database import Tx
from llmproxy.storage.reader import Reader
from llmproxy.storage.writer import Writer

if TYPE_CHECKING:
    from jinja2 import Environment

P = ParamSpec("P")
T = TypeVar("T")

READS_AT_ONCE_MAX = 64
READS_OF_ONE_MAX = 8
"""Of one user, with all their sessions: nobody waits behind whoever asks for many pages."""
STRANGERS_AT_ONCE_MAX = 32
STRANGERS_OF_ONE_MAX = 16
"""Of one address, of which it is not known yet who asks. They take no place of users'."""
SLOW_WAITING_MAX = 20
_HERE = Path(__file__).parent
STATIC = _HERE / "static"
STATIC_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=()",
    # Not "no-referrer": browsers would then leave the origin out of our own forms.
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "x-robots-tag": "noindex",
}


class Site:
    """The dashboard's own world; lives as long as the server."""

    def __init__(
        self,
        address: ReachedAt,
        reader: Reader,
        writer: Writer[Any],
        clock: Clock,
        office: Office,
    ) -> None:
        """Read static files into memory.

        Args:
            address: how the server is reached.
            reader: the dashboard's own: nobody else waits behind its questions.
            writer: the server's.
            clock: the time.
            office: what pages need of the server beyond its database.
        """
        self.address = address
        self.clock = clock
        self.office = office
        self.attempts = SignInAttempts()
        self._reader = reader
        self._writer = writer
        self._users = SessionUsers()
        self._jobs = KeptTasks()
        self._reads = Slots("pages", of_all=READS_AT_ONCE_MAX, of_one=READS_OF_ONE_MAX)
        self._strangers = Slots(
            "strangers", of_all=STRANGERS_AT_ONCE_MAX, of_one=STRANGERS_OF_ONE_MAX
        )
        self.static = {
            path.name: path.read_bytes()
            for path in sorted(STATIC.iterdir())
            if path.suffix in STATIC_TYPES
        }
        self._templates: Environment | None = None
        self._slow = asyncio.Lock()
        self._beside = asyncio.Lock()
        self._waiting = 0

    async def prepare(self) -> None:
        """Be ready to answer with pages: a thread compiles all templates.

        For the first who asks for a page: a proxy starts without them.
        """
        self._templates = await asyncio.to_thread(self._load_templates)

    def _load_templates(self) -> "Environment":
        from jinja2 import Environment, FileSystemLoader, StrictUndefined  # noqa: PLC0415 - 100 ms

        templates = Environment(
            loader=FileSystemLoader(_HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        templates.filters.update(formats.FILTERS)
        digest = hashlib.sha256(b"".join(self.static.values())).hexdigest()
        templates.globals["version"] = digest[:12]
        for name in templates.list_templates():
            templates.get_template(name)
        return templates

    def catalog(self) -> Catalog:
        """Return the model catalog in force."""
        return self.office.catalog.current

    # --- asking and changing -----------------------------------------------------------------

    def visit(self, request: Request[Any, Any, Any]) -> Visit:
        """Return what a request says of itself; what can be no session's secret counts as none."""
        visit = read_visit(request, self.address)
        return visit if sessions.is_secret(visit.session) else visit._replace(session="")

    async def read_for_stranger(self, visit: Visit, function: Callable[..., T], *args: object) -> T:
        """Return `function(tx, *args)` for someone who is not known yet.

        What they send, such as a session's secret, may be made up each time: they are counted by
        address.

        Raises:
            BusyError: so many strangers ask, or so many there, that it would wait long.
            DatabaseError: it cannot be read, or not in time.
        """
        return await self._read(self._strangers, visit.household, function, *args)

    async def _read(
        self, slots: Slots, who: Hashable, function: Callable[..., T], *args: object
    ) -> T:
        """Return `function(tx, *args)`, run in the reader's thread, counted for `who`."""
        slots.take(who)
        try:
            return await self._reader.read(function, *args)
        finally:
            slots.give_back(who)

    async def read_as_user(
        self,
        request: Request[Any, Any, Any],
        function: Callable[Concatenate[Tx, SignedIn, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> tuple[SignedIn, T]:
        """Return who is signed in, and `function(tx, signed_in, …)` at the same moment.

        Raises:
            NotSignedInError: nobody is.
        """
        visit, now_ms = self.visit(request), self.clock.now_ms()
        who = await self._whose(visit, now_ms)
        asked = (request.state, visit, now_ms, function, args, kwargs)
        return await self._read(self._reads, who, run_as_user, *asked)

    async def _whose(self, visit: Visit, now_ms: int) -> int:
        """Return the id of the user by whom reads of a session are counted; lets nobody in.

        Raises:
            NotSignedInError: it is nobody's session.
            BusyError: too many strangers ask at once.
        """
        user_id = self._users.find(visit.session)
        if user_id is None:
            user_id = await self.read_for_stranger(visit, _find_user_id, visit.session, now_ms)
            self._users.keep(visit.session, user_id)
        return user_id

    async def read_as_admin(
        self,
        request: Request[Any, Any, Any],
        function: Callable[Concatenate[Tx, SignedIn, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> tuple[SignedIn, T]:
        """Return what `read_as_user` does, for operators.

        Raises:
            NotSignedInError: nobody is signed in.
            NotAllowedError: somebody is who is no operator.
        """
        return await self.read_as_user(request, for_admins(function), *args, **kwargs)

    async def require_user(self, request: Request[Any, Any, Any]) -> SignedIn:
        """Return who is signed in.

        Raises:
            NotSignedInError: nobody is.
        """
        signed_in, _ = await self.read_as_user(request, _nothing)
        return signed_in

    async def require_admin(self, request: Request[Any, Any, Any]) -> SignedIn:
        """Return the operator who is signed in.

        Raises:
            NotSignedInError: nobody is signed in.
            NotAllowedError: somebody is who is no operator.
        """
        signed_in, _ = await self.read_as_admin(request, _nothing)
        return signed_in

    async def write_as_user(
        self,
        request: Request[Any, Any, Any],
        function: Callable[Concatenate[Tx, SignedIn, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> tuple[SignedIn, T]:
        """Return who is signed in, and `function(tx, signed_in, …)` once it is committed.

        The function must `note` in the audit log what it changes. Requests to the proxy count it
        from then on. Who is not signed in never comes before the writer, which all requests share.

        Raises:
            NotSignedInError: nobody is; nothing was changed.
            LlmproxyError: what the function raised; nothing was changed.
        """
        await self.require_user(request)
        visit, now_ms = self.visit(request), self.clock.now_ms()
        asked = (request.state, visit, now_ms, noted(function), args, kwargs)
        # Whoever asks may be gone by then: what is committed is made known all the same.
        done: tuple[SignedIn, T] = await self._jobs.run(self._commit_and_tell(run_as_user, *asked))
        return done

    async def _commit_and_tell(self, function: Callable[..., T], *args: object) -> T:
        done = await self._writer.submit(function, *args)
        await self._writer.publish_own()
        return done

    async def write_as_admin(
        self,
        request: Request[Any, Any, Any],
        function: Callable[Concatenate[Tx, SignedIn, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> tuple[SignedIn, T]:
        """Return what `write_as_user` does, for operators.

        Raises:
            NotAllowedError: somebody is signed in who is no operator; nothing was changed.
        """
        return await self.write_as_user(request, for_admins(function), *args, **kwargs)

    async def write_with_files_as_admin(
        self,
        request: Request[Any, Any, Any],
        function: Callable[Concatenate[Tx, SignedIn, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> tuple[SignedIn, T]:
        """Do as `write_as_admin` does, where files are read and written in the same transaction.

        As a command: in a thread, with a connection of its own, one at a time. The loop waits for
        no file, and the server learns of it as of any command.
        """
        await self.require_admin(request)
        visit, now_ms = self.visit(request), self.clock.now_ms()
        path = self.office.config.paths.database
        asked = (request.state, visit, now_ms, noted(for_admins(function)), args, kwargs)
        async with self._beside:
            done: tuple[SignedIn, T] = await asyncio.to_thread(
                write_beside, path, run_as_user, *asked
            )
        await self._writer.refresh()
        return done

    async def write(self, function: Callable[..., T], *args: object) -> T:
        """Return `function(tx, *args)` once it is committed; nothing of it concerns the proxy."""
        return await self._writer.submit(function, *args)

    async def slowly(self, function: Callable[..., T], *args: object) -> T:
        """Return `function(*args)`, which takes long on purpose: in a thread, one at a time.

        With pauses, so that whoever has others' addresses to try passwords from gets a third of
        a core at most.

        Raises:
            BusyError: many wait already.
        """
        if self._waiting >= SLOW_WAITING_MAX:
            raise BusyError
        self._waiting += 1
        try:
            async with self._slow:
                began_s = self.clock.monotonic_s()
                done = await asyncio.to_thread(function, *args)
                await asyncio.sleep(2 * (self.clock.monotonic_s() - began_s))
                return done
        finally:
            self._waiting -= 1

    # --- answering ---------------------------------------------------------------------------

    def page(
        self,
        template: str,
        visit: Visit,
        values: Mapping[str, object],
        *,
        status: int = 200,
        signed_in: SignedIn | None = None,
    ) -> Response[bytes]:
        """Return a page."""
        assert self._templates is not None, "prepare() comes first"
        text = self._templates.get_template(template).render(
            {
                "at": visit.root + PREFIX,
                "root": visit.root,
                "user": signed_in.user.name if signed_in else None,
                "has_session": bool(visit.session),
                "is_admin": signed_in is not None and signed_in.user.is_admin,
                "now_ms": self.clock.now_ms(),
                "page": "",
                **values,
            }
        )
        return Response(
            text.encode(),
            status_code=status,
            media_type="text/html",
            headers={**HEADERS, "cache-control": "no-store"},
        )

    def unchanged(self) -> Response[bytes]:
        """Return the answer to a page that shows already what there is to show."""
        headers = {**HEADERS, "cache-control": "no-store"}
        return Response(b"", status_code=204, media_type="text/plain", headers=headers)

    def leave_for(self, visit: Visit, path: str) -> Response[bytes]:
        """Return an answer to a page's script (htmx) that leads the whole page elsewhere."""
        headers = {
            **HEADERS,
            "cache-control": "no-store",
            "hx-redirect": visit.root + PREFIX + path,
        }
        return Response(b"", status_code=200, media_type="text/plain", headers=headers)

    def redirect(self, visit: Visit, path: str) -> Response[bytes]:
        """Return an answer that leads to another page, which is asked for with GET."""
        headers = {**HEADERS, "cache-control": "no-store", "location": visit.root + PREFIX + path}
        return Response(b"", status_code=303, media_type="text/plain", headers=headers)


NO_SESSION = sessions.NewSession("", 0)


def set_session(response: Response[bytes], visit: Visit, session: sessions.NewSession) -> None:
    """Let the browser keep a session, or with NO_SESSION forget the one that it has."""
    secret, life_s = session.secret, session.life_ms // 1000
    secure = "; Secure" if visit.is_secure else ""
    response.headers["set-cookie"] = (
        f"{visit.cookie_name}={secret}; Path=/; Max-Age={life_s}; HttpOnly; SameSite=Strict{secure}"
    )


def _find_user_id(tx: Tx, session: str, now_ms: int) -> int:
    user = sessions.find_session_user(tx, session, now_ms=now_ms)
    if user is None:
        raise NotSignedInError
    return user.id


def _nothing(tx: Tx, signed_in: SignedIn) -> None:
    del tx, signed_in
