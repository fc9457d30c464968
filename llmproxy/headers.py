"""Owns which headers pass, both ways, and where clients put their API key.

Unknown headers pass (new SDKs must keep working); connection-level ones, identities and anything
that could act on the operator's account, or on the browser of whoever reads an answer, do not
(reference wire.md F.3, F.6, F.7).
"""

from collections.abc import Iterable, Iterator
from itertools import product
from operator import itemgetter
from urllib.parse import parse_qsl

from llmproxy.dialects.families import FAMILIES

Headers = list[tuple[bytes, bytes]]

_HOP_BY_HOP = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"proxy-authenticate"}
    | {b"proxy-authorization", b"te", b"trailer", b"transfer-encoding", b"upgrade"}
)
_CREDENTIALS = (b"authorization", b"x-api-key", b"api-key", b"x-goog-api-key")
_AUTHORIZATION = 0


def _spellings(name: bytes) -> Iterator[bytes]:
    """Yield a name with each hyphen as it is or as an underscore.

    Servers that make variables of headers (CGI, WSGI, PHP) take all of them for the same one.
    """
    first, *others = name.split(b"-")
    for separators in product((b"-", b"_"), repeat=len(others)):
        yield first + b"".join(map(bytes.__add__, separators, others))


def _all_spellings(names: Iterable[bytes]) -> frozenset[bytes]:
    return frozenset(spelling for name in names for spelling in _spellings(name))


_REQUEST_DROPPED = _all_spellings(
    _HOP_BY_HOP
    | frozenset(_CREDENTIALS)
    | {b"host", b"content-length", b"expect", b"accept-encoding", b"cookie", b"forwarded"}
    | {b"x-real-ip", b"via", b"true-client-ip", b"referer", b"origin"}
    | {b"openai-organization", b"openai-project", b"anthropic-workspace-id"}
    | {b"anthropic-user-profile-id", b"x-goog-user-project"}
    # Some servers and gateways take another method, path or host from these than from the request.
    | {b"x-http-method", b"x-http-method-override", b"x-method-override"}
    | {b"x-original-url", b"x-rewrite-url", b"x-host"}
    # What is read as JSON or as a form here is called so: by another type or charset it could mean
    # other things.
    | {b"content-type"}
    # Ours to keep (idempotency.py): upstream all users are one account, where one user's key might
    # be answered with what another had asked under the same one.
    | {b"idempotency-key"}
)
_REQUEST_DROPPED_PREFIXES = tuple(
    _all_spellings(
        {b"x-forwarded-", b"cf-", b"sec-", b"x-llmproxy-"}
        # These command gateways: another model, host or account.
        | {b"x-portkey-", b"x-litellm-", b"helicone-"}
        # Google's servers take orders from these: another account, an answer without its usage.
        | {b"x-goog-"}
    )
)
_IDENTITY = (b"accept-encoding", b"identity")
"""Compressed answers could not be metered as they pass."""
_ANSWER_DROPPED = _HOP_BY_HOP | {
    *(b"content-length", b"set-cookie", b"set-cookie2", b"alt-svc", b"strict-transport-security"),
    *(b"content-security-policy", b"content-security-policy-report-only", b"clear-site-data"),
    *(b"report-to", b"reporting-endpoints", b"nel", b"server", b"date"),
    # A web server in front of us would send one of its files, or another answer, for these.
    *(b"x-sendfile", b"x-lighttpd-send-file", b"x-lighttpd-send-tempfile", b"x-reproxy-url"),
    *(b"location", b"content-location", b"refresh", b"www-authenticate", b"authentication-info"),
    *(b"openai-organization", b"openai-project"),
    *(b"anthropic-organization-id", b"anthropic-workspace-id"),
    # These tell of the origin that was asked, which is us: the provider's are the operator's own.
    *(b"ratelimit", b"ratelimit-policy"),
}
_ANSWER_DROPPED_PREFIXES = (b"access-control-", b"x-llmproxy-", b"x-accel-")
_BLANKS = " \t"
"""Around a value (RFC 9110, 5.5). `str.strip` alone takes more for blank than HTTP does."""


def given_api_keys(headers: Headers, query: bytes = b"") -> Iterator[str]:
    """Yield what may be an API key, in the order in which the places count (wire.md F.3)."""
    given = [(_CREDENTIALS.index(name), value) for name, value in headers if name in _CREDENTIALS]
    if len(given) > 1:
        given.sort(key=itemgetter(0))
    for place, value in given:
        text = value.decode("latin-1").strip(_BLANKS)
        if place == _AUTHORIZATION:
            scheme, _, text = text.partition(" ")
            if scheme.lower() != "bearer":
                continue
        yield text.strip(_BLANKS)
    if b"key=" in query:
        yield from (value for name, value in parse_qsl(query.decode("latin-1")) if name == "key")


def to_provider(
    headers: Headers, dialect: str, secret: str, content_type: bytes = b"application/json"
) -> Headers:
    """Return the headers to send upstream: the client's that may pass, and the provider's key.

    The body is called what it was read as. An empty secret is a provider that needs no key: no
    credential is sent then.
    """
    dropped = _with_hop_by_hop(_REQUEST_DROPPED, headers)
    passed = [
        (name, value)
        for name, value in headers
        if name not in dropped and not name.startswith(_REQUEST_DROPPED_PREFIXES)
    ]
    passed += ((b"content-type", content_type), _IDENTITY)
    if not secret:
        return passed
    family = FAMILIES[dialect]
    passed.append((family.credential, family.scheme + secret.encode()))
    return passed


def to_client(headers: Headers, secret: str) -> Headers:
    """Return the provider's headers that the client may see; names are in lower case."""
    hidden = secret.encode()
    dropped = _with_hop_by_hop(_ANSWER_DROPPED, headers)
    return [
        (name, value)
        for name, value in headers
        if name not in dropped
        and not name.startswith(_ANSWER_DROPPED_PREFIXES)
        and not (hidden and hidden in value)
    ]


def secret_forms(secret: str) -> list[bytes]:
    r"""Return how a provider may write a key in its answer: as it is, and in JSON with `\/`."""
    forms = {secret.encode(), secret.replace("/", "\\/").encode()}
    return sorted(forms - {b""})


def _with_hop_by_hop(dropped: frozenset[bytes], headers: Headers) -> frozenset[bytes]:
    """Return what is dropped, and what `connection` says is for the next hop (RFC 9110, 7.6.1)."""
    for name, value in headers:
        if name == b"connection" and value.lower() not in {b"keep-alive", b"close"}:
            dropped |= {part.strip().lower() for part in value.split(b",")}
    return dropped


def without_secret(data: bytes, secret: str) -> bytes:
    """Return bytes of the provider's with its key masked, if it has one."""
    for form in secret_forms(secret):
        data = data.replace(form, b"***")
    return data


def asks_websocket(headers: Headers) -> bool:
    """Say whether a client wants to leave HTTP for WebSocket."""
    return any(name == b"upgrade" and value.lower() == b"websocket" for name, value in headers)
