"""Request lines, methods, and every way to disagree about where a request ends."""

from collections.abc import Iterator

from tests.bad_inputs.raw import CHAT, GOOD_BODY, SMUGGLED, Bad, request

CHUNKED = b"Transfer-Encoding: chunked"
ONE_CHUNK = b"%x\r\n%b\r\n0\r\n\r\n" % (len(GOOD_BODY), GOOD_BODY)
HEX = b"%x" % len(GOOD_BODY)

LINES = {
    "version-2": b"POST %b HTTP/2.0",
    "version-3": b"POST %b HTTP/3",
    "version-0-9": b"POST %b HTTP/0.9",
    "version-1-2": b"POST %b HTTP/1.2",
    "version-1-10": b"POST %b HTTP/1.10",
    "version-01-1": b"POST %b HTTP/01.1",
    "version-1": b"POST %b HTTP/1",
    "version-1-dot": b"POST %b HTTP/1.",
    "version-comma": b"POST %b HTTP/1,1",
    "version-letters": b"POST %b HTTP/a.b",
    "version-negative": b"POST %b HTTP/-1.1",
    "version-empty": b"POST %b HTTP/",
    "version-small-letters": b"POST %b http/1.1",
    "version-misspelt": b"POST %b HTPP/1.1",
    "version-space-inside": b"POST %b HTTP /1.1",
    "version-tail": b"POST %b HTTP/1.1x",
    "version-tab-behind": b"POST %b HTTP/1.1\t",
    "version-missing": b"POST %b",
    "version-missing-space": b"POST %b ",
    "version-twice": b"POST %b HTTP/1.1 HTTP/1.1",
    "space-first": b" POST %b HTTP/1.1",
    "tab-first": b"\tPOST %b HTTP/1.1",
    "nul-first": b"\x00POST %b HTTP/1.1",
    "bom-first": b"\xef\xbb\xbfPOST %b HTTP/1.1",
    "tab-between": b"POST\t%b HTTP/1.1",
    "vertical-tab-between": b"POST\x0b%b HTTP/1.1",
    "no-space": b"POST%b HTTP/1.1",
    "no-target": b"POST HTTP/1.1",
    "target-first": b"%b POST HTTP/1.1",
    "quoted": b'"POST %b HTTP/1.1"',
    "rtsp-method": b"DESCRIBE %b HTTP/1.1",
    "icecast": b"POST %b ICE/1.0",
    "an-answer": b"HTTP/1.1 200 OK",
    "proxy-protocol": b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nPOST %b HTTP/1.1",
}
OTHER_PROTOCOLS = {
    "http2-preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9),
    "tls": bytes.fromhex("16030100310100002d0303") + bytes(38),
    "ssh": b"SSH-2.0-OpenSSH_9.9\r\n",
    "smtp": b"EHLO evil.example\r\n",
    "redis": b"*1\r\n$4\r\nPING\r\n",
    "memcached": b"stats\r\n",
    "socks5": b"\x05\x01\x00",
    "proxy-protocol-2": b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + bytes(12),
    "ftp": b"USER anonymous\r\n",
    "telnet": b"\xff\xfd\x18\xff\xfd\x20",
    "json": b'{"jsonrpc":"2.0","method":"x","id":1}\n',
    "binary": bytes(range(256)),
    "letters": b"A" * 4000 + b"\r\n\r\n",
}
NOT_SERVED = b"""
    GET HEAD PUT DELETE PATCH OPTIONS TRACE COPY LOCK UNLOCK MKCOL MOVE PROPFIND PROPPATCH SEARCH
    BIND REBIND UNBIND ACL REPORT MKACTIVITY CHECKOUT MERGE M-SEARCH NOTIFY SUBSCRIBE UNSUBSCRIBE
    PURGE MKCALENDAR LINK UNLINK SOURCE QUERY
""".split()
"""Known methods, not of this path: 405 (RFC 9110, 15.5.6)."""
NO_METHODS = {
    "unknown": b"FOO",
    "small-letters": b"post",
    "mixed-letters": b"Post",
    "longer": b"POSTX",
    "shorter": b"POS",
    "two": b"GET,POST",
    "nul": b"PO\x00ST",
    "accent": "PÖST".encode(),
    "emoji": "🙂".encode(),
    "colon": b"POST:",
    "quote": b"POST'",
    "zero-width": "PO\u200bST".encode(),
    "very-long": b"P" * 4000,
    "setup": b"SETUP",
    "play": b"PLAY",
    "announce": b"ANNOUNCE",
    "teardown": b"TEARDOWN",
    "record": b"RECORD",
    "get-parameter": b"GET_PARAMETER",
    "connect-to-authority": b"CONNECT",
}
GET_ONLY = {
    "models": b"/v1/openai/models",
    "one-model": b"/v1/openai/models/gpt-4o",
    "key": b"/v1/key",
    "usage": b"/v1/usage",
    "health": b"/healthz",
    "description": b"/openapi.json",
    "ready": b"/readyz",
    "root": b"/",
}

LENGTHS = {
    "plus": b"+%d",
    "minus": b"-%d",
    "hexadecimal": b"0x%x",
    "exponent": b"%de0",
    "fraction": b"%d.0",
    "space-inside": b"%d %d",
    "comma": b"%d,%d",
    "comma-space": b"%d, %d",
    "semicolon": b"%d;",
    "quoted": b'"%d"',
    "underscore": b"7_7",
    "letters": b"ten",
    "nul": b"%d\x00",
    "empty": b" ",
    "vertical-tab": b"\x0b%d",
    "form-feed": b"%d\x0c",
    "arabic": "\u0667\u0667".encode(),
    "wide": "\uff17\uff17".encode(),
    "above-64-bit": b"18446744073709551616",
    "five-thousand-digits": b"9" * 5000,
    "negative-zero": b"-0",
    "no-break-space": b"%d\xa0",
}
CODINGS = {
    "identity": b"identity",
    "gzip": b"gzip",
    "unknown": b"x",
    "chunked-not-last": b"chunked, gzip",
    "gzip-chunked": b"gzip, chunked",
    "identity-chunked": b"identity, chunked",
    "twice": b"chunked, chunked",
    "longer": b"xchunked",
    "tail": b"chunkedx",
    "parameter": b"chunked;x=1",
    "quoted": b'"chunked"',
    "apostrophes": b"'chunked'",
    "semicolon": b";chunked",
    "comma-first": b",chunked",
    "comma-last": b"chunked,",
    "vertical-tab": b"\x0bchunked",
    "form-feed": b"chunked\x0c",
    "no-break-space": b"chunked\xa0",
    "nul": b"chunked\x00",
    "kelvin": "chun\u212aed".encode(),
    "empty": b"",
    "folded": b"\r\n chunked",
    "colon": b": chunked",
}
CHUNKS = {
    "minus": b"-" + HEX + b"\r\n%b\r\n0\r\n\r\n",
    "plus": b"+" + HEX + b"\r\n%b\r\n0\r\n\r\n",
    "hexadecimal": b"0x" + HEX + b"\r\n%b\r\n0\r\n\r\n",
    "space-before": b" " + HEX + b"\r\n%b\r\n0\r\n\r\n",
    "space-behind": HEX + b" \r\n%b\r\n0\r\n\r\n",
    "tab-behind": HEX + b"\t\r\n%b\r\n0\r\n\r\n",
    "empty": b"\r\n%b\r\n0\r\n\r\n",
    "letters": b"g\r\n%b\r\n0\r\n\r\n",
    "above-64-bit": b"1000000000000004d\r\n%b\r\n0\r\n\r\n",
    "line-feed-only": HEX + b"\n%b\r\n0\r\n\r\n",
    "return-only": HEX + b"\r%b\r\n0\r\n\r\n",
    "no-end": HEX + b"\r\n%b0\r\n\r\n",
    "line-feed-end": HEX + b"\r\n%b\n0\r\n\r\n",
    "too-small": b"3\r\n%b\r\n0\r\n\r\n",
    "too-large": b"50\r\n%b\r\n0\r\n\r\n",
    "extension-line-feed": HEX + b";a\nb\r\n%b\r\n0\r\n\r\n",
    "extension-return": HEX + b";a\rb\r\n%b\r\n0\r\n\r\n",
    "extension-nul": HEX + b";a\x00\r\n%b\r\n0\r\n\r\n",
    "extension-open-quote": HEX + b';a="b\r\n%b\r\n0\r\n\r\n',
    "end-line-feeds": HEX + b"\r\n%b\r\n0\n\n",
    "end-letters": HEX + b"\r\n%b\r\nzero\r\n\r\n",
    "trailer-without-colon": HEX + b"\r\n%b\r\n0\r\nX\r\n\r\n",
    "trailer-space": HEX + b"\r\n%b\r\n0\r\nX : y\r\n\r\n",
    "trailer-length": HEX + b"\r\n%b\r\n0\r\nContent-Length: 3\r\n\r\n",
    "trailer-nul": HEX + b"\r\n%b\r\n0\r\nX: \x00\r\n\r\n",
    "trailer-folded": HEX + b"\r\n%b\r\n0\r\nX: y\r\n z\r\n\r\n",
    "wide-digit": "\uff14d\r\n".encode() + b"%b\r\n0\r\n\r\n",
}
LENGTH = b"Content-Length: %d" % len(GOOD_BODY)
BOTH = {
    "length-first": (LENGTH, CHUNKED),
    "chunked-first": (CHUNKED, LENGTH),
    "length-0": (b"Content-Length: 0", CHUNKED),
    "small-letters": (b"content-length: 4", b"transfer-encoding: chunked"),
    "capitals": (LENGTH, b"TRANSFER-ENCODING: CHUNKED"),
    "gzip": (LENGTH, b"Transfer-Encoding: gzip"),
    "identity": (LENGTH, b"Transfer-Encoding: identity"),
    "two-codings": (CHUNKED, b"Transfer-Encoding: identity", LENGTH),
    "hidden-by-a-space": (LENGTH, b"Transfer-Encoding : chunked"),
    "hidden-by-a-tab": (LENGTH, b"Transfer-Encoding\t: chunked"),
    "hidden-by-a-fold": (LENGTH, b"X: y\r\n Transfer-Encoding: chunked"),
    "hidden-by-a-first-space": (LENGTH, b" Transfer-Encoding: chunked"),
    "hidden-by-a-line-feed": (LENGTH, b"X: y\nTransfer-Encoding: chunked"),
    "hidden-by-a-return": (LENGTH, b"X: y\rTransfer-Encoding: chunked"),
    "hidden-by-a-nul": (LENGTH, b"X: y\x00Transfer-Encoding: chunked"),
    "with-an-upgrade": (LENGTH, CHUNKED, b"Connection: upgrade", b"Upgrade: h2c"),
}
TWO = {
    "same-length": (LENGTH, LENGTH),
    "length-and-0": (LENGTH, b"Content-Length: 0"),
    "0-and-length": (b"Content-Length: 0", LENGTH),
    "length-in-other-letters": (LENGTH, b"content-length: 4"),
    "chunked-twice": (CHUNKED, CHUNKED),
    "chunked-identity": (CHUNKED, b"Transfer-Encoding: identity"),
    "identity-chunked": (b"Transfer-Encoding: identity", CHUNKED),
    "gzip-chunked": (b"Transfer-Encoding: gzip", CHUNKED),
}


def inputs() -> Iterator[Bad]:
    """Yield them; behind whatever may end too soon for one side stands another request."""
    for name, line in LINES.items():
        yield Bad(f"line-{name}", 400, request(line=line.replace(b"%b", CHAT)))
    for name, raw in OTHER_PROTOCOLS.items():
        yield Bad(f"protocol-{name}", 400, raw)
    yield Bad("line-without-end", 408, b"POST " + CHAT)
    yield Bad("line-feeds-only", 400, request(end=b"\n"))
    yield Bad("line-returns-only", 400, request(end=b"\r"))
    yield Bad("line-feed-first-only", 400, request(line=b"POST " + CHAT + b" HTTP/1.1\nX: y"))
    yield from _methods()
    for name, value in LENGTHS.items():
        length = value.replace(b"%d", b"%d" % len(GOOD_BODY)).replace(b"%x", HEX)
        yield _smuggling(f"length-{name}", (b"Content-Length: " + length,), GOOD_BODY)
    for name, value in CODINGS.items():
        yield _smuggling(f"coding-{name}", (b"Transfer-Encoding: " + value,), ONE_CHUNK)
    for name, pattern in CHUNKS.items():
        body = pattern.replace(b"%b", GOOD_BODY)
        yield _smuggling(f"chunk-{name}", (CHUNKED,), body)
    for name, headers in BOTH.items():
        yield _smuggling(f"both-{name}", headers, ONE_CHUNK)
    for name, headers in TWO.items():
        body = GOOD_BODY if b"ength" in headers[0] else ONE_CHUNK
        yield _smuggling(f"two-{name}", headers, body)
    old = b"POST " + CHAT + b" HTTP/1.0"
    raw = request(line=old, headers=(CHUNKED,), body=ONE_CHUNK, length=b"")
    yield Bad("smuggling-chunked-in-1-0", 400, raw + SMUGGLED)
    raw = request(body=b'{"model":"nothing"}', length=b"19") + SMUGGLED
    yield Bad("smuggling-none-two-honest-requests", "400-404", raw)


def _methods() -> Iterator[Bad]:
    for method in NOT_SERVED:
        line = method + b" " + CHAT + b" HTTP/1.1"
        yield Bad(f"method-{method.decode().lower()}", 405, request(line=line))
    for name, method in NO_METHODS.items():
        target = b"evil.example:443" if method == b"CONNECT" else CHAT
        line = method + b" " + target + b" HTTP/1.1"
        yield Bad(f"method-none-{name}", 400, request(line=line))
    for name, path in GET_ONLY.items():
        for method in (b"POST", b"PUT", b"DELETE"):
            line = method + b" " + path + b" HTTP/1.1"
            bad = request(line=line, body=b"", length=b"0")
            yield Bad(f"method-{name}-{method.decode().lower()}", 405, bad)


def _smuggling(name: str, headers: tuple[bytes, ...], body: bytes) -> Bad:
    raw = request(headers=headers, body=body, length=b"") + SMUGGLED
    return Bad(f"smuggling-{name}", 400, raw)
