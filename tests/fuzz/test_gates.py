"""The gates of a request's head, its path, its headers and its key: whatever comes, one answer."""

import base64

import httptools
from hypothesis import example, given
from hypothesis import strategies as st

from llmproxy import vault
from llmproxy.errors import ApiError
from llmproxy.headers import given_api_keys, to_client, to_provider
from llmproxy.presets import PRESETS
from llmproxy.routes import Route, Routes, passed_query
from llmproxy.server.head_gate import HEADERS_MAX, Head, HeadRefusedError, read_head
from tests.fuzz.strategies import THOROUGH, cut, cuts

DIALECTS = {name: preset.dialect for name, preset in PRESETS.items()}
ROUTES = Routes(DIALECTS.items())
SECRET = "sk-provider-secret-0001"
POSTED = frozenset(ROUTES._post)
ASKED = frozenset({*ROUTES._get, *ROUTES._bases})

# --- paths ---

SEGMENTS = st.sampled_from(
    [
        *(b"v1", b"openai", b"anthropic", b"groq", b"gemini", b"v1beta", b"chat", b"completions"),
        *(b"responses", b"compact", b"messages", b"count_tokens", b"models", b"gpt-4o", b"files"),
        *(b"..", b".", b"", b"%2e%2e", b"%2f", b"%00", b";x", b"V1", b"OpenAI", b"ch%61t", b"\\"),
        *(b"evil.example", b"@evil", b":443", b"*", b"%", b"\xff", b"key", b"usage"),
    ]
)
PATHS = st.lists(SEGMENTS, max_size=7).map(lambda parts: b"/" + b"/".join(parts))
TABLE = st.sampled_from(sorted(POSTED | ASKED))
METHODS = st.sampled_from(
    ["GET", "HEAD", *["POST"] * 6, "PUT", "DELETE", "OPTIONS", "TRACE", "post", ""]
)


@st.composite
def near_misses(draw: st.DrawFn) -> bytes:
    """A path of the table, or one with a byte added, taken away or changed."""
    path = bytearray(draw(TABLE))
    at = draw(st.integers(0, len(path) - 1))
    change = draw(st.sampled_from(["none", "add", "take", "case", *["encode"] * 3]))
    if change == "add":
        path.insert(at, draw(st.integers(0, 255)))
    elif change == "take":
        del path[at]
    elif change == "case":
        path[at : at + 1] = bytes(path[at : at + 1]).swapcase()
    elif change == "encode":
        path[at : at + 1] = b"%%%02x" % path[at]
    return bytes(path)


def found(method: str, path: bytes) -> Route | ApiError:
    try:
        return ROUTES.find(method, path)
    except ApiError as error:
        return error


@given(METHODS, PATHS | near_misses() | st.binary(max_size=40))
@THOROUGH
def test_a_path_is_in_the_table_byte_for_byte_or_leads_nowhere(method: str, path: bytes) -> None:
    route = found(method, path)
    if isinstance(route, ApiError):
        assert route.status in {400, 404, 405}
        route.body("req_1").decode()
        assert path not in (POSTED if method == "POST" else frozenset())
    elif method == "POST":
        assert path in POSTED
        assert route.endpoint is not None
        # What is sent on is ours: a constant of the endpoint, and nothing of the path.
        assert route.endpoint.upstream_path.isascii()
        assert path.startswith(b"/v1/" + route.provider.encode() + b"/")
    else:
        assert method in {"GET", "HEAD"}
        assert route.endpoint is None
        assert path in ASKED or route.model_id is not None


@given(st.lists(st.sampled_from([b"beta=true", b"beta=1", b"key=x", b"a", b"", b"%62eta=true"])))
@THOROUGH
def test_of_a_query_one_constant_passes_or_nothing(parts: list[bytes]) -> None:
    query = b"&".join(parts)
    assert passed_query(query, b"beta=true") == ("?beta=true" if b"beta=true" in parts else "")
    assert passed_query(query, b"alt=sse") == ""


# --- headers ---

NAMES = st.sampled_from(
    [
        *("host", "connection", "keep-alive", "te", "transfer-encoding", "upgrade", "trailer"),
        *("authorization", "x-api-key", "api-key", "x-goog-api-key", "cookie", "content-length"),
        *("x-forwarded-for", "x-real-ip", "cf-ray", "sec-fetch-mode", "x-llmproxy-clamp", "via"),
        *("openai-organization", "set-cookie", "server", "location", "content-type", "x-new"),
        *("accept", "user-agent", "anthropic-beta", "x-http-method-override", "expect", "date"),
    ]
)
SPELLINGS = NAMES | NAMES.map(lambda name: name.replace("-", "_")) | NAMES.map(str.upper)
VALUES = st.sampled_from(
    [
        b"",
        b"x",
        b"close",
        b"keep-alive, x-new",
        b"x-new,accept",
        SECRET.encode(),
        b"Bearer k",
        b"\xff",
    ]
)
HEADERS = st.lists(
    st.tuples(SPELLINGS.map(lambda name: name.lower().encode()), VALUES), max_size=12
)
PASS = {b"x-new", b"x_new", b"accept", b"user-agent", b"user_agent", b"anthropic-beta"}
PASS |= {b"anthropic_beta", b"set-cookie", b"set_cookie", b"server", b"location", b"date"}


def named(headers: list[tuple[bytes, bytes]]) -> set[bytes]:
    values = [value for name, value in headers if name == b"connection"]
    return {part.strip() for value in values for part in value.split(b",")}


@given(HEADERS, st.sampled_from(["openai", "anthropic"]))
@THOROUGH
def test_a_provider_gets_the_unknown_headers_and_ours(
    headers: list[tuple[bytes, bytes]], dialect: str
) -> None:
    own = (b"x-api-key", SECRET.encode())
    if dialect == "openai":
        own = (b"authorization", b"Bearer " + SECRET.encode())
    added = [(b"content-type", b"application/json"), (b"accept-encoding", b"identity"), own]
    passed = [pair for pair in headers if pair[0] in PASS and pair[0] not in named(headers)]
    assert to_provider(headers, dialect, SECRET) == passed + added


@given(HEADERS)
@THOROUGH
def test_a_client_gets_no_secret_and_nothing_for_the_next_hop(
    headers: list[tuple[bytes, bytes]],
) -> None:
    passed = to_client(headers, SECRET)
    assert not any(SECRET.encode() in value for _, value in passed)
    dropped = {b"set-cookie", b"server", b"location", b"date", b"openai-organization"}
    dropped |= {b"connection", b"transfer-encoding", b"content-length", b"upgrade", b"keep-alive"}
    assert not {name for name, _ in passed} & (dropped | named(headers))
    assert [pair for pair in headers if pair in passed] == passed


# --- heads ---

TARGETS = st.sampled_from(
    [b"/", b"/x?y", b"/x#y", b"*", b"http://h/x", b"HTTP://h", b"ftp://h/x", b"x", b"", b"//h/x"]
)
MORE = st.sampled_from(
    [
        *((b"host", b"x"), (b"host", b"x"), (b"host", b"x/y"), (b"host", b""), (b"x", b"y")),
        *((b"transfer-encoding", b"chunked"), (b"transfer-encoding", b" Chunked\t")),
        *((b"transfer-encoding", b"gzip, chunked"), (b"expect", b"100-Continue")),
    ]
)


def head_or_status(version: str, target: bytes, headers: list[tuple[bytes, bytes]]) -> Head | int:
    try:
        return read_head(version, target, headers)
    except HeadRefusedError as refusal:
        return refusal.status


@given(st.sampled_from(["1.1", "1.0", "2.0", "0.9"]), TARGETS, st.lists(MORE, max_size=6))
@THOROUGH
def test_a_head_is_read_in_one_way_or_refused(
    version: str, target: bytes, headers: list[tuple[bytes, bytes]]
) -> None:
    hosts = [value for name, value in headers if name == b"host"]
    codings = [value for name, value in headers if name == b"transfer-encoding"]
    is_good = (
        version in {"1.1", "1.0"}
        and (len(hosts) == 1 or (not hosts and version == "1.0"))
        and b"x/y" not in hosts
        and target in {b"/", b"/x?y", b"*", b"http://h/x", b"HTTP://h", b"//h/x"}
        and all(value.strip().lower() == b"chunked" for value in codings)
        and (version == "1.1" or not codings)
    )
    head = head_or_status(version, target, headers)
    assert is_good == isinstance(head, Head)
    if isinstance(head, Head):
        assert head.awaits_continue == (
            version == "1.1" and (b"expect", b"100-Continue") in headers
        )
    else:
        assert head == 400


def test_more_headers_than_any_client_sends_are_refused() -> None:
    many = [(b"host", b"x"), *[(b"x", b"y")] * (HEADERS_MAX - 1)]
    assert read_head("1.1", b"/", many) == (b"/", b"", False)
    assert head_or_status("1.1", b"/", [*many, (b"x", b"y")]) == 431


class Parsed:
    """What the parser makes of bytes, and our gate of that."""

    def __init__(self) -> None:
        self.said: list[object] = []
        self.target, self.headers = b"", list[tuple[bytes, bytes]]()
        self.parser = httptools.HttpRequestParser(self)

    def on_message_begin(self) -> None:
        self.target, self.headers = b"", []

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        version = self.parser.get_http_version()
        self.said.append(read_head(version, self.target, self.headers))
        self.said.append(list(self.headers))

    def on_body(self, body: bytes) -> None:
        if self.said and isinstance(self.said[-1], bytes):
            body = self.said.pop() + body  # type: ignore[operator]
        self.said.append(body)


LINES = st.sampled_from(
    [
        *(b"POST /x HTTP/1.1\r\n", b"GET /x?y HTTP/1.0\r\n", b"POST /x#y HTTP/1.1\r\n"),
        *(b"Host: x\r\n", b"host: y\r\n", b"Content-Length: 3\r\n", b"Content-Length: 4\r\n"),
        *(b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip, chunked\r\n"),
        *(
            b" folded\r\n",
            b"X: y\n",
            b"X : y\r\n",
            b"\r\n",
            b"\r\n",
            b"abc",
            b"3\r\nabc\r\n0\r\n\r\n",
        ),
        *(b"X: y\r\n", b"Expect: 100-continue\r\n", b"\x00", b"\r", b"\n"),
    ]
)
REQUESTS = st.lists(LINES, max_size=14).map(b"".join)


def judged(pieces: list[bytes]) -> object:
    parsed = Parsed()
    try:
        for piece in pieces:
            parsed.parser.feed_data(piece)
    except httptools.HttpParserError:
        return "refused"
    except httptools.HttpParserUpgrade:
        return "upgrade"
    return parsed.said


@given(st.sampled_from([b"POST /x HTTP/1.1\r\nHost: x\r\n", b""]), REQUESTS, st.data())
@example(b"", b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", None)
@THOROUGH
def test_a_request_is_judged_alike_however_it_is_cut(
    begin: bytes, rest: bytes, data: st.DataObject | None
) -> None:
    raw = begin + rest
    wanted = judged([raw])
    assert judged([bytes([byte]) for byte in raw]) == wanted
    if data is not None:
        assert judged(cut(raw, data.draw(cuts(len(raw))))) == wanted


# --- keys ---

KEY = vault.new_api_key()


@given(st.integers(0, len(KEY) - 1), st.characters(), st.sampled_from(["change", "insert", "cut"]))
@THOROUGH
def test_a_key_that_was_changed_anywhere_is_not_well_formed(at: int, letter: str, how: str) -> None:
    changed = {
        "change": KEY[:at] + letter + KEY[at + 1 :],
        "insert": KEY[:at] + letter + KEY[at:],
        "cut": KEY[:at],
    }[how]
    assert vault.is_well_formed(changed) == (changed == KEY)


@given(st.text(max_size=80) | st.binary(max_size=60).map(lambda raw: raw.decode("latin-1")))
@THOROUGH
def test_any_text_is_looked_at_as_a_key(text: str) -> None:
    assert not vault.is_well_formed(text) or text.startswith("llmp_")
    assert not vault.is_well_formed("llmp_" + text)


BLANK = st.text(" \t", max_size=3)


@given(
    st.sampled_from([b"authorization", b"x-api-key", b"api-key", b"x-goog-api-key"]),
    st.binary(min_size=1, max_size=30).map(base64.b64encode),
    BLANK,
    BLANK,
)
@THOROUGH
def test_a_key_is_found_in_its_place_without_the_blanks_around_it(
    name: bytes, key: bytes, before: str, behind: str
) -> None:
    bearer = b"bEaReR " if name == b"authorization" else b""
    value = before.encode() + bearer + before.encode() + key + behind.encode()
    assert list(given_api_keys([(b"host", b"x"), (name, value)])) == [key.decode()]


@given(HEADERS, st.binary(max_size=60).map(lambda query: query.replace(b" ", b"+")))
@THOROUGH
def test_whatever_stands_where_keys_stand_can_be_looked_up(
    headers: list[tuple[bytes, bytes]], query: bytes
) -> None:
    for key in given_api_keys(headers, query + b"&key=x%ff%00y"):
        assert len(vault.hash_api_key(key)) == 32
        vault.is_well_formed(key)
