"""Owns which headers pass, both ways, and where clients put their API key.

Unknown headers pass (new SDKs must keep working); connection-level ones, identities and anything
that could act on the operator's account do not (reference wire.md F.3, F.6, F.7).
"""

from collections.abc import Iterator
from operator import itemgetter
from urllib.parse import parse_qsl

Headers = list[tuple[bytes, bytes]]

_HOP_BY_HOP = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"proxy-authenticate"}
    | {b"proxy-authorization", b"te", b"trailer", b"transfer-encoding", b"upgrade"}
)
_CREDENTIALS = (b"authorization", b"x-api-key", b"api-key", b"x-goog-api-key")
_AUTHORIZATION = 0
_REQUEST_DROPPED = (
    _HOP_BY_HOP
    | frozenset(_CREDENTIALS)
    | {b"host", b"content-length", b"expect", b"accept-encoding", b"cookie", b"forwarded"}
    | {b"x-real-ip", b"via", b"true-client-ip", b"referer", b"origin"}
    | {b"openai-organization", b"openai-project", b"anthropic-workspace-id"}
    | {b"anthropic-user-profile-id", b"x-goog-user-project"}
    # Ours to keep (idempotency.py): upstream all users are one account, where one user's key might
    # be answered with what another had asked under the same one.
    | {b"idempotency-key"}
)
_REQUEST_DROPPED_PREFIXES = (b"x-forwarded-", b"cf-", b"sec-", b"x-llmproxy-")
_ANSWER_DROPPED = _HOP_BY_HOP | {
    *(b"content-length", b"set-cookie", b"alt-svc", b"strict-transport-security"),
    *(b"content-security-policy", b"report-to", b"nel", b"server", b"date"),
    *(b"openai-organization", b"openai-project"),
    *(b"anthropic-organization-id", b"anthropic-workspace-id"),
    # These tell of the origin that was asked, which is us: the provider's are the operator's own.
    *(b"ratelimit", b"ratelimit-policy"),
}
_ANSWER_DROPPED_PREFIXES = (b"access-control-", b"x-llmproxy-")


def given_api_keys(headers: Headers, query: bytes = b"") -> Iterator[str]:
    """Yield what may be an API key, in the order in which the places count (wire.md F.3)."""
    given = [(_CREDENTIALS.index(name), value) for name, value in headers if name in _CREDENTIALS]
    if len(given) > 1:
        given.sort(key=itemgetter(0))
    for place, value in given:
        text = value.decode("latin-1").strip()
        if place == _AUTHORIZATION:
            scheme, _, text = text.partition(" ")
            if scheme.lower() != "bearer":
                continue
        yield text.strip()
    if b"key=" in query:
        yield from (value for name, value in parse_qsl(query.decode("latin-1")) if name == "key")


def to_provider(headers: Headers, dialect: str, secret: str) -> Headers:
    """Return the headers to send upstream: the client's that may pass, and the provider's key.

    An empty secret is a provider that needs no key: no credential is sent then.
    """
    dropped = _REQUEST_DROPPED
    for name, value in headers:
        if name == b"connection" and value.lower() not in {b"keep-alive", b"close"}:
            dropped |= {part.strip().lower() for part in value.split(b",")}
    passed = [
        (name, value)
        for name, value in headers
        if name not in dropped and not name.startswith(_REQUEST_DROPPED_PREFIXES)
    ]
    # Compressed answers could not be metered as they pass.
    passed.append((b"accept-encoding", b"identity"))
    if not secret:
        return passed
    if dialect == "anthropic":
        passed.append((b"x-api-key", secret.encode()))
    else:
        passed.append((b"authorization", b"Bearer " + secret.encode()))
    return passed


def to_client(headers: Headers, secret: str) -> Headers:
    """Return the provider's headers that the client may see; names are in lower case."""
    hidden = secret.encode()
    return [
        (name, value)
        for name, value in headers
        if name not in _ANSWER_DROPPED
        and not name.startswith(_ANSWER_DROPPED_PREFIXES)
        and not (hidden and hidden in value)
    ]


def without_secret(data: bytes, secret: str) -> bytes:
    """Return bytes of the provider's with its key masked, if it has one."""
    return data.replace(secret.encode(), b"***") if secret else data
