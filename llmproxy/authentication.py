"""Owns who a request speaks for: the API keys in the server's memory, and from where they count."""

from asyncio import Future
from collections.abc import Callable

from llmproxy import vault
from llmproxy.accounts import Principal
from llmproxy.clock import Clock
from llmproxy.errors import invalid_api_key, not_allowed, user_disabled
from llmproxy.headers import Headers, given_api_keys
from llmproxy.limits import Network, client_address
from llmproxy.trace import Trace


class Authentication:
    """Knows every live API key by its hash."""

    def __init__(
        self,
        clock: Clock,
        refresh: Callable[[], Future[None]],
        trusted_proxies: tuple[Network, ...],
    ) -> None:
        """Begin without any key.

        Args:
            clock: the time.
            refresh: looks at the database again; resolves when what it says has been published.
            trusted_proxies: whose word counts for where a request comes from.
        """
        self._clock = clock
        self._refresh = refresh
        self._trusted_proxies = trusted_proxies
        self._principals: dict[bytes, Principal] = {}

    def publish(self, principals: dict[bytes, Principal]) -> None:
        """Replace what is known of the keys."""
        self._principals = principals

    @property
    def has_api_keys(self) -> bool:
        """Say whether anybody could be let in."""
        now_ms = self._clock.now_ms()
        return any(
            not principal.is_disabled and principal.ends_at_ms > now_ms
            for principal in self._principals.values()
        )

    async def authenticate(
        self, headers: Headers, query: bytes, peer: str, trace: Trace
    ) -> Principal:
        """Return who a request speaks for: the first given key that is known counts.

        Raises:
            ApiError: 401; 403 when the user is disabled, or the key may not be used from there.
        """
        given = list(given_api_keys(headers, query))
        principal = self._find(given)
        is_let_in = principal is not None and self._is_let_in(principal, headers, peer)
        # A key that fails its checksum was never made here: no second look, however many come.
        if not is_let_in and any(vault.is_well_formed(key) for key in given):
            await self._refresh()
            principal = self._find(given)
        if principal is None:
            raise invalid_api_key(given=bool(given))
        trace.user, trace.api_key = principal.user, principal.api_key
        if principal.is_disabled:
            raise user_disabled()
        if not self._is_let_in(principal, headers, peer):
            raise not_allowed("may not be used from this address", code="network_not_allowed")
        return principal

    def find(self, headers: Headers, query: bytes) -> Principal | None:
        """Return who a request speaks for, by what is known here."""
        return self._find(list(given_api_keys(headers, query)))

    def _find(self, given: list[str]) -> Principal | None:
        for key in given:
            principal = self._principals.get(vault.hash_api_key(key))
            # Ended ones are known too, and one may end while nothing is committed that tells of it.
            if principal is not None and principal.ends_at_ms > self._clock.now_ms():
                return principal
        return None

    def _is_let_in(self, principal: Principal, headers: Headers, peer: str) -> bool:
        """Say whether the user is enabled, and the key may be used from where it is."""
        limits = principal.limits
        if principal.is_disabled or limits is None or limits.networks is None:
            return not principal.is_disabled
        forwarded_for = [value for name, value in headers if name == b"x-forwarded-for"]
        address = client_address(peer, forwarded_for, self._trusted_proxies)
        return limits.allows_address(address)
