"""Paths that lead nowhere, and those of a provider that are not served."""

from collections.abc import Iterator

from tests.bad_inputs.raw import CHAT, Bad, request

NOWHERE, NOT_METERED, INVALID = 404, 400, 400
"""By DESIGN 4: below a known provider whatever is not in the table "cannot be metered", unless a
slash is doubled or at the end; everything else is nowhere. What is no target at all is no HTTP."""

DOTS = {
    "dots": b"..",
    "encoded-dots": b"%2e%2e",
    "half-encoded-dots": b".%2e",
    "capital-encoded-dots": b"%2E%2E",
    "twice-encoded-dots": b"%252e%252e",
    "dots-encoded-slash": b"..%2f",
    "dots-backslash": b"..\\",
    "dots-encoded-backslash": b"..%5c",
    "dots-semicolon": b"..;",
    "overlong-dots": b"%c0%ae%c0%ae",
    "wide-dots": b"%ef%bc%8e%ef%bc%8e",
    "utf16-dots": b"%u002e%u002e",
    "one-dot": b".",
    "one-encoded-dot": b"%2e",
    "dots-nul": b"..%00",
    "dots-line-break": b"..%0d%0a",
}
PLACES = {
    "to-another-provider": (b"/v1/openai/%s/anthropic/messages", NOT_METERED),
    "to-an-unmetered-path": (b"/v1/openai/chat/%s/files", NOT_METERED),
    "behind": (b"/v1/openai/chat/completions/%s", NOT_METERED),
    "inside": (b"/v1/openai/chat/%s/chat/completions", NOT_METERED),
    "before-the-provider": (b"/v1/%s/v1/openai/chat/completions", NOWHERE),
    "in-front": (b"/%s/v1/openai/chat/completions", NOWHERE),
}
SUFFIXES = {
    "semicolon": b";x=1",
    "session": b";jsessionid=1",
    "json": b".json",
    "php": b".php",
    "space": b"%20",
    "plus": b"+",
    "nul": b"%00",
    "nul-json": b"%00.json",
    "line-feed": b"%0a",
    "line-break": b"%0d%0aX-Injected:%20yes",
    "tab": b"%09",
    "question": b"%3f",
    "question-stream": b"%3Fbeta=true",
    "hash": b"%23",
    "encoded-backslash": b"%5c",
    "backslash": b"\\",
    "dot": b".",
    "two-dots": b"..",
    "tilde": b"~",
    "star": b"*",
    "colon": b":batch",
    "ampersand": b"&x",
    "equals": b"=",
    "quote": b"'",
    "double-quote": b'"',
    "sql": b"'%20OR%201=1--",
    "script": b"<script>alert(1)</script>",
    "pipe": b"|id",
    "backtick": b"`id`",
    "dollar": b"$(id)",
    "braces": b"{{7*7}}",
    "brackets": b"[0]",
    "percent": b"%",
    "two-percents": b"%%",
    "no-hex": b"%zz",
    "zero-width": b"%e2%80%8b",
    "wide-slash": b"%ef%bc%8f",
    "no-utf8": b"%ff",
    "utf16-slash": b"%u002f",
    "right-to-left": b"%e2%80%ae",
}
ELSEWHERE = {
    "two-slashes-in-front": b"//v1/openai/chat/completions",
    "three-slashes-in-front": b"///v1/openai/chat/completions",
    "another-host": b"//evil.example/v1/openai/chat/completions",
    "another-host-backslash": b"/\\evil.example/v1/openai/chat/completions",
    "another-host-at": b"/@evil.example/v1/openai/chat/completions",
    "a-url-in-the-path": b"/http://evil.example/v1/openai/chat/completions",
    "a-url-as-provider": b"/v1/https://evil.example/chat/completions",
    "provider-at-host": b"/v1/openai@evil.example/chat/completions",
    "provider-port": b"/v1/openai:443/chat/completions",
    "two-slashes-before-the-provider": b"/v1//openai/chat/completions",
    "two-slashes-behind-the-provider": b"/v1/openai//chat/completions",
    "two-slashes-in-the-endpoint": b"/v1/openai/chat//completions",
    "slash-at-the-end": b"/v1/openai/chat/completions/",
    "two-slashes-at-the-end": b"/v1/openai/chat/completions//",
    "semicolon-in-front": b"/;/v1/openai/chat/completions",
    "encoded-slash-in-front": b"/%2fv1/openai/chat/completions",
    "capital-v": b"/V1/openai/chat/completions",
    "capital-provider": b"/v1/OpenAI/chat/completions",
    "version-2": b"/v2/openai/chat/completions",
    "version-01": b"/v01/openai/chat/completions",
    "no-version": b"/openai/chat/completions",
    "no-provider": b"/v1/chat/completions",
    "no-provider-messages": b"/v1/messages",
    "empty-provider": b"/v1/",
    "unknown-provider": b"/v1/nobody/chat/completions",
    "long-provider": b"/v1/" + b"p" * 4000 + b"/chat/completions",
    "azure": b"/v1/azure/openai/deployments/x/chat/completions",
    "own-key-below": b"/v1/key/1",
    "own-key-slash": b"/v1/key/",
    "own-key-plural": b"/v1/keys",
    "own-key-encoded": b"/v1/%6bey",
    "own-usage-below": b"/v1/usage/..%2fkey",
    "metrics": b"/metrics",
    "admin": b"/admin",
    "docs": b"/docs",
    "schema": b"/schema",
    "schema-file": b"/schema/openapi.json",
    "openapi": b"/openapi.yaml",
    "swagger": b"/schema/swagger",
    "environment": b"/.env",
    "git": b"/.git/config",
    "wordpress": b"/wp-login.php",
    "server-status": b"/server-status",
    "passwords": b"/../../../../etc/passwd",
    "encoded-passwords": b"/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
    "database": b"/data/llmproxy.db",
    "long": b"/" + b"a" * 8000,
    "many-segments": b"/a" * 2000,
}
UNMETERED = {
    "capital-endpoint": b"/v1/openai/Chat/Completions",
    "capital-completions": b"/v1/openai/chat/COMPLETIONS",
    "two-inner-versions": b"/v1/openai/v1/v1/chat/completions",
    "inner-version-2": b"/v1/openai/v2/chat/completions",
    "another-dialect": b"/v1/openai/messages",
    "another-dialect-2": b"/v1/anthropic/chat/completions",
    "long-endpoint": b"/v1/openai/" + b"a" * 8000,
    "prefix": b"/v1/openai/chat/completion",
    "reversed": b"/v1/openai/completions/chat",
    "provider-twice": b"/v1/openai/openai/chat/completions",
    "a-model-to-delete": b"/v1/openai/models/gpt-4o",
    "organization": b"/v1/openai/organization/admin_api_keys",
    "anthropics-organization": b"/v1/anthropic/v1/organizations/api_keys",
    "files": b"/v1/openai/files",
    "batches": b"/v1/anthropic/v1/messages/batches",
}
ABSOLUTE = {
    "unmetered": (b"http://127.0.0.1/v1/openai/files", NOT_METERED),
    "nowhere": (b"http://evil.example/v2", NOWHERE),
    "capital-scheme": (b"HTTP://evil.example/v2", NOWHERE),
    "https": (b"https://evil.example:8443/v1/openai/files", NOT_METERED),
    "ipv6": (b"http://[::1]/nothing", NOWHERE),
    "metadata-service": (b"http://169.254.169.254/latest/meta-data/", NOWHERE),
    "no-path": (b"http://evil.example?x=1", 405),  # the path is "/", which has no POST
    "two-hosts": (b"http://evil.example//v1/openai/files", NOWHERE),
    "user": (b"http://user:secret@evil.example" + CHAT, INVALID),
    "fragment": (b"http://evil.example" + CHAT + b"#x", INVALID),
    "ftp": (b"ftp://evil.example" + CHAT, INVALID),
    "websocket": (b"ws://evil.example" + CHAT, INVALID),
    "file": (b"file:///etc/passwd", INVALID),
    "script": (b"javascript:alert(1)", INVALID),
    "no-host": (b"http://" + CHAT, INVALID),
    "one-slash": (b"http:" + CHAT, INVALID),
    "scheme-only": (b"http://", INVALID),
}
NO_TARGET = {
    "fragment": CHAT + b"#x",
    "empty-fragment": CHAT + b"#",
    "fragment-in-front": b"/#" + CHAT,
    "fragment-in-the-query": CHAT + b"?x#y",
    "no-slash": CHAT[1:],
    "encoded-first-slash": b"%2f" + CHAT[1:],
    "backslash-first": b"\\" + CHAT[1:],
    "query-first": b"?" + CHAT,
    "dot-first": b".." + CHAT,
    "authority": b"evil.example:443",
    "ipv6-authority": b"[::1]:80",
    "at-host": b"@evil.example" + CHAT,
    "nul": CHAT + b"\x00",
    "nul-first": b"\x00" + CHAT,
    "control-1": CHAT + b"\x01",
    "delete": CHAT + b"\x7f",
    "tab": CHAT + b"\tx",
    "vertical-tab": CHAT + b"\x0b",
    "form-feed": CHAT + b"\x0c",
    "space": CHAT + b" x",
    "high-byte": CHAT + b"\x80",
    "utf8": CHAT + "é".encode(),
    "wide-slash": CHAT + "\uff0f".encode(),
    "line-feed": CHAT + b"\nX: y",
    "return": CHAT + b"\rX: y",
    "escape": CHAT + b"\x1b[2J",
}


def inputs() -> Iterator[Bad]:
    """Yield every path as a POST that would else be served, with a good key."""
    for place, (pattern, status) in PLACES.items():
        for name, dots in DOTS.items():
            yield _bad(f"{place}-{name}", status, pattern.replace(b"%s", dots))
    for position, letter in enumerate(CHAT[1:], 1):
        target = b"%s%%%02x%s" % (CHAT[:position], letter, CHAT[position + 1 :])
        is_below = target.startswith(b"/v1/openai/")
        status = NOT_METERED if is_below else NOWHERE
        yield _bad(f"encoded-letter-{position:02}", status, target)
    for name, suffix in SUFFIXES.items():
        yield _bad(f"suffix-{name}", NOT_METERED, CHAT + suffix)
    for name, target in ELSEWHERE.items():
        yield _bad(f"nowhere-{name}", NOWHERE, target)
    for name, target in UNMETERED.items():
        status = 405 if name == "a-model-to-delete" else NOT_METERED
        yield _bad(f"unmetered-{name}", status, target)
    for name, (target, status) in ABSOLUTE.items():
        yield _bad(f"absolute-{name}", status, target)
    for name, target in NO_TARGET.items():
        yield _bad(f"invalid-{name}", INVALID, target)
    yield _bad("asterisk", NOWHERE, b"*")


def _bad(name: str, status: int, target: bytes) -> Bad:
    return Bad(f"path-{name}", status, request(line=b"POST " + target + b" HTTP/1.1"))
