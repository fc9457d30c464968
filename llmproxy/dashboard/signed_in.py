"""Owns who is signed in, and what runs in their name within a transaction."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar

from litestar.datastructures import State

from llmproxy import audit, sessions
from llmproxy.accounts import User
from llmproxy.dashboard.errors import NotAllowedError, NotSignedInError
from llmproxy.dashboard.visit import Visit
from llmproxy.storage.database import AdminDatabase, Tx

P = ParamSpec("P")
T = TypeVar("T")


class SignedIn(NamedTuple):
    """Who asks for a page, and how the request came."""

    user: User
    visit: Visit
    now_ms: int

    @property
    def actor(self) -> str:
        """Who acts, as every history shows it."""
        return f"dashboard:{self.user.name}"

    def note(self, tx: Tx, act: str, details: str) -> None:
        """Write to the audit log what is being changed, in the words of the command line."""
        audit.note(tx, actor=self.actor, act=act, details=details, now_ms=self.now_ms)


def run_as_user(
    tx: Tx,
    state: State,
    visit: Visit,
    now_ms: int,
    function: Callable[..., T],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> tuple[SignedIn, T]:
    """Run a function for the user whose session it is, in the same transaction.

    Raises:
        NotSignedInError: it is nobody's, or not any more.
    """
    user = sessions.find_session_user(tx, visit.session, now_ms=now_ms)
    if user is None:
        raise NotSignedInError
    signed_in = SignedIn(user, visit, now_ms)
    state.signed_in = signed_in  # for the page of an error
    return signed_in, function(tx, signed_in, *args, **kwargs)


def for_admins(
    function: Callable[Concatenate[Tx, SignedIn, P], T],
) -> Callable[Concatenate[Tx, SignedIn, P], T]:
    """Return a function that is for operators alone; it refuses everybody else."""

    def run(tx: Tx, signed_in: SignedIn, /, *args: P.args, **kwargs: P.kwargs) -> T:
        if not signed_in.user.is_admin:
            raise NotAllowedError
        return function(tx, signed_in, *args, **kwargs)

    return run


def noted(
    function: Callable[Concatenate[Tx, SignedIn, P], T],
) -> Callable[Concatenate[Tx, SignedIn, P], T]:
    """Return a function that changes something; it fails unless it notes that in the audit log."""

    def run(tx: Tx, signed_in: SignedIn, /, *args: P.args, **kwargs: P.kwargs) -> T:
        acts = audit.count(tx)
        done = function(tx, signed_in, *args, **kwargs)
        assert audit.count(tx) > acts, "what a page changes must be noted in the audit log"
        return done

    return run


def write_beside(path: Path, function: Callable[..., T], *args: object) -> T:
    """Return `function(tx, *args)` once it is committed, beside the server's own writer."""
    database = AdminDatabase(path)
    try:
        with database.write() as tx:
            return function(tx, *args)
    finally:
        database.close()
