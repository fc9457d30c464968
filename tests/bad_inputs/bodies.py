"""Bodies that are no request, and JSON that not every parser would read, or not alike.

Written in the manner of public collections of JSON tests, none of which is copied here.
"""

import json
from collections.abc import Iterator
from typing import Any

from tests.bad_inputs.raw import CHAT, GOOD_BODY, MESSAGES, Bad, request

RESPONSES = b"/v1/openai/responses"

VALUES = {
    "number-leading-zero": b"01",
    "number-two-zeros": b"00",
    "number-minus-leading-zero": b"-01",
    "number-plus": b"+1",
    "number-no-whole-part": b".5",
    "number-no-fraction": b"5.",
    "number-no-fraction-exponent": b"1.e3",
    "number-no-exponent": b"1e",
    "number-no-exponent-sign": b"1e+",
    "number-exponent-fraction": b"1e2.5",
    "number-exponent-space": b"1e 2",
    "number-two-points": b"1.2.3",
    "number-hexadecimal": b"0x10",
    "number-octal": b"0o7",
    "number-binary": b"0b1",
    "number-underscore": b"1_000",
    "number-two-minus": b"--1",
    "number-minus-space": b"- 1",
    "number-minus-only": b"-",
    "number-suffix": b"1f",
    "number-big-suffix": b"1n",
    "number-fraction": b"1/2",
    "number-sum": b"1+1",
    "number-space-inside": b"1 000",
    "number-percent": b"5%",
    "number-arabic": "\u0663".encode(),
    "number-wide": "\uff11".encode(),
    "number-infinity-sign": "∞".encode(),
    "number-nan": b"NaN",
    "number-nan-small": b"nan",
    "number-minus-nan": b"-NaN",
    "number-infinity": b"Infinity",
    "number-minus-infinity": b"-Infinity",
    "number-inf": b"inf",
    "number-5000-digits": b"9" * 5000,
    "literal-python-true": b"True",
    "literal-capitals": b"TRUE",
    "literal-python-none": b"None",
    "literal-undefined": b"undefined",
    "literal-shorter": b"tru",
    "literal-longer": b"truee",
    "literal-null-longer": b"nulll",
    "literal-yes": b"yes",
    "literal-word": b"gpt",
    "literal-expression": b"new Date()",
    "literal-template": b"${1}",
    "literal-wide": "\uff54\uff52\uff55\uff45".encode(),
    "string-apostrophes": b"'x'",
    "string-backticks": b"`x`",
    "string-curly-quotes": "“x”".encode(),
    "string-open": b'"x',
    "string-open-escape": b'"x\\',
    "string-only-opening": b'"',
    "string-three-quotes": b'"""x"""',
    "string-two": b'"a" "b"',
    "string-plus": b'"a"+"b"',
    "string-prefix": b'b"x"',
    "string-escape-x": b'"\\x41"',
    "string-escape-a": b'"\\a"',
    "string-escape-v": b'"\\v"',
    "string-escape-0": b'"\\0"',
    "string-escape-apostrophe": b'"\\\'"',
    "string-escape-capital-u": b'"\\U00000041"',
    "string-escape-capital-n": b'"\\N"',
    "string-escape-braces": b'"\\u{41}"',
    "string-escape-short": b'"\\u12"',
    "string-escape-no-hex": b'"\\u12g4"',
    "string-escape-plus": b'"\\u+123"',
    "string-escape-space": b'"\\u 123"',
    "string-escape-underscore": b'"\\u1_23"',
    "string-escape-end": b'"\\u"',
    "string-escape-line-feed": b'"\\\n"',
    **{f"string-control-{code:02x}": b'"a%bb"' % bytes([code]) for code in range(0x20)},
    "utf8-ff": b'"\xff"',
    "utf8-fe": b'"\xfe\xfe"',
    "utf8-alone": b'"\x80"',
    "utf8-overlong-slash": b'"\xc0\xaf"',
    "utf8-overlong-nul": b'"\xc0\x80"',
    "utf8-overlong-3": b'"\xe0\x80\xaf"',
    "utf8-surrogate": b'"\xed\xa0\x80"',
    "utf8-surrogate-pair": b'"\xed\xa0\xbd\xed\xb8\x80"',
    "utf8-cut": b'"\xe2\x82"',
    "utf8-cut-4": b'"\xf0\x9f\x98"',
    "utf8-above-unicode": b'"\xf4\x90\x80\x80"',
    "utf8-five-bytes": b'"\xf8\x88\x80\x80\x80"',
    "utf8-latin-1": '"é"'.encode("latin-1"),
    "array-comma-behind": b"[1,]",
    "array-comma-first": b"[,1]",
    "array-two-commas": b"[1,,2]",
    "array-only-comma": b"[,]",
    "array-no-comma": b"[1 2]",
    "array-semicolon": b"[1;2]",
    "array-colon": b"[1:2]",
    "array-open": b"[1",
    "array-closed-twice": b"[1]]",
    "array-closed-by-brace": b"[1}",
    "array-parentheses": b"(1)",
    "array-spread": b"[...x]",
    "array-elision": b"[1,]]",
    "object-comma-behind": b'{"a":1,}',
    "object-comma-first": b'{,"a":1}',
    "object-two-commas": b'{"a":1,,"b":2}',
    "object-no-comma": b'{"a":1 "b":2}',
    "object-no-colon": b'{"a" 1}',
    "object-two-colons": b'{"a"::1}',
    "object-equals": b'{"a"=1}',
    "object-arrow": b'{"a"=>1}',
    "object-semicolon": b'{"a":1;"b":2}',
    "object-no-value": b'{"a":}',
    "object-no-value-next": b'{"a":,"b":1}',
    "object-no-name": b"{:1}",
    "object-name-only": b'{"a"}',
    "object-name-unquoted": b"{a:1}",
    "object-name-apostrophes": b"{'a':1}",
    "object-name-number": b"{1:1}",
    "object-name-null": b"{null:1}",
    "object-name-array": b"{[1]:1}",
    "object-name-brackets": b'{["a"]:1}',
    "object-set": b'{"a","b"}',
    "object-open": b'{"a":1',
    "object-closed-twice": b'{"a":1}}',
    "object-closed-by-bracket": b'{"a":1]',
    "object-spread": b'{...{"a":1}}',
    "comment-line": b"1 // x\n",
    "comment-block": b"/* x */ 1",
    "comment-hash": b"1 # x\n",
    "comment-sql": b"1 -- x\n",
    "comment-html": b"<!-- x --> 1",
    "space-no-break": b"\xc2\xa01",
    "space-form-feed": b"\x0c1",
    "space-vertical-tab": b"\x0b1",
    "space-line-separator": "\u20281".encode(),
    "space-ideographic": "\u30001".encode(),
    "space-zero-width": "\u200b1".encode(),
    "space-nul": b"\x001",
    "nothing": b"",
    "twice-model": b'1,"model":"gpt-4o-mini"',
    "twice-model-escaped": b'1,"m\\u006fdel":"gpt-4o-mini"',
    "twice-model-all-escaped": b'1,"\\u006d\\u006f\\u0064\\u0065\\u006c":"gpt-4o-mini"',
    "twice-model-same": b'1,"model":"gpt-4o"',
    "twice-model-null": b'1,"model":null',
    "twice-messages": b'1,"messages":[]',
    "twice-maximum": b'1,"max_tokens":1,"max_tokens":9',
    "twice-stream": b'1,"stream":false,"stream":true',
    "twice-elsewhere": b'1,"temperature":0,"temperature":1',
    "twice-empty-name": b'1,"":1,"":2',
    "twice-nested": b'{"a":1,"a":2}',
    "twice-deep": b'[[{"b":[{"a":1,"c":[],"a":2}]}]]',
    "twice-surrogates": '1,"\\ud83d\\ude00":1,"😀":2'.encode(),
    "twice-slash": b'1,"a/b":1,"a\\/b":2',
    "twin-model": b'1,"Model":"gpt-4o-mini"',
    "twin-model-capitals": b'1,"MODEL":"gpt-4o-mini"',
    "twin-maximum": b'1,"Max_Tokens":100000',
    "twin-maximum-2": b'1,"MAX_COMPLETION_TOKENS":100000',
    "twin-stream": b'1,"Stream":true',
    "twin-stream-long-s": '1,"\u017ftream":true'.encode(),
    "twin-n": b'1,"N":100',
    "twin-tier": b'1,"Service_Tier":"priority"',
    "deep-arrays": b"[" * 6000,
    "deep-objects": b'{"a":' * 3000,
    "deep-mixed": b'[{"a":' * 3000,
}
"""Each stands as the value of a member of a request that would else be served."""

WHOLE = {
    "empty-text": b" ",
    "line-breaks": b"\r\n\r\n",
    "null": b"null",
    "true": b"true",
    "number": b"1",
    "string": b'"model"',
    "array": b"[]",
    "array-around": b"[" + GOOD_BODY + b"]",
    "string-around": json.dumps(GOOD_BODY.decode()).encode(),
    "only-opening": b"{",
    "only-closing": b"}",
    "empty-object": b"{}",
    "nul": b"\x00",
    "nul-first": b"\x00" + GOOD_BODY,
    "nul-behind": GOOD_BODY + b"\x00",
    "bom-first": b"\xef\xbb\xbf" + GOOD_BODY,
    "bom-behind": GOOD_BODY + b"\xef\xbb\xbf",
    "comma-behind": GOOD_BODY + b",",
    "semicolon-behind": GOOD_BODY + b";",
    "brace-behind": GOOD_BODY + b"}",
    "letter-behind": GOOD_BODY + b"x",
    "two": GOOD_BODY * 2,
    "two-lines": GOOD_BODY + b"\n" + GOOD_BODY,
    "two-other-model": GOOD_BODY + b'\n{"model":"gpt-4o-mini"}',
    "sequence": b"\x1e" + GOOD_BODY + b"\n",
    "callback": b"callback(" + GOOD_BODY + b")",
    "in-parentheses": b"(" + GOOD_BODY + b")",
    "assignment": b"x=" + GOOD_BODY,
    "guard": b")]}',\n" + GOOD_BODY,
    "event": b"data: " + GOOD_BODY + b"\n\n",
    "escaped": GOOD_BODY.replace(b'"', b'\\"'),
    "cut": GOOD_BODY[:-1],
    "cut-in-a-name": GOOD_BODY[:5],
    "cut-in-the-middle": GOOD_BODY[:40],
    "utf16": GOOD_BODY.decode().encode("utf-16"),
    "utf16-little": GOOD_BODY.decode().encode("utf-16-le"),
    "utf16-big": GOOD_BODY.decode().encode("utf-16-be"),
    "utf32": GOOD_BODY.decode().encode("utf-32"),
    "utf32-little": GOOD_BODY.decode().encode("utf-32-le"),
    "utf32-big": GOOD_BODY.decode().encode("utf-32-be"),
    "utf7": b'+AHs-"model":"gpt-4o"+AH0-',
    "ebcdic": GOOD_BODY.decode().encode("cp500"),
    "gzip": bytes.fromhex("1f8b08000000000000ff") + bytes(20),
    "form": b"model=gpt-4o&max_tokens=9",
    "form-of-json": b"=" + GOOD_BODY,
    "multipart": b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\ngpt-4o\r\n--x--\r\n',
    "xml": b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY y SYSTEM "file:///etc/passwd">]><x>&y;</x>',
    "html": b"<!doctype html><script>alert(1)</script>",
    "yaml": b"model: gpt-4o\nmax_tokens: 9\n",
    "toml": b'model = "gpt-4o"\n',
    "csv": b"model,max_tokens\ngpt-4o,9\n",
    "msgpack": bytes.fromhex("82a56d6f64656ca66770742d346fa16e01"),
    "cbor": bytes.fromhex("a1656d6f64656c666770742d346f"),
    "protobuf": bytes.fromhex("0a066770742d346f"),
    "bson": bytes.fromhex("16000000026d6f64656c00070000006770742d346f0000"),
    "base64": b"eyJtb2RlbCI6ImdwdC00byJ9",
    "pickle": b"\x80\x04}\x94\x8c\x05model\x94\x8c\x06gpt-4o\x94s.",
    "png": b"\x89PNG\r\n\x1a\n" + bytes(16),
    "ndarray": b"\x93NUMPY\x01\x00",
    "random": bytes(range(0x80, 0x100)),
}

MODELS: tuple[object, ...] = (None, 1, 0, True, [], ["gpt-4o"], {}, {"id": "gpt-4o"}, 1.5, "")
MODELS += (
    "x" * 257,
    " gpt-4o",
    "gpt-4o ",
    "gpt-4o\n",
    "gpt-4o\0",
    "GPT-4O",
    "Gpt-4o",
    "gpt-4\u043e",
)
MODELS += ("gpt-4o\ud800", "gpt-4o%00", "gpt-4o'--", "' OR 1=1--", "%", "*", "gpt-4o;", "nothing")
MODELS += ("../gpt-4o", "gpt-4o/../gpt-4o-mini", "gpt-4o?x=1", "gpt-4o#x", "\x1b[2Jgpt-4o")
MODELS += ("=1+1", "<script>alert(1)</script>", "${7*7}", "\u202egpt-4o", "gpt\u20114o")
TYPES: dict[str, tuple[object, ...]] = {
    "max_tokens": (
        -1,
        -(2**63),
        1.5,
        9.0,
        1e3,
        "9",
        True,
        False,
        [],
        [9],
        {},
        2**31 + 1,
        2**63,
        10**30,
    ),
    "max_completion_tokens": (-1, 1.5, "9", True, [], 2**63),
    "n": (0, -1, 129, 1.5, 1.0, "2", True, [], {}, 2**63),
    "stream": (0, 1, "true", "", [], {}, 1.0),
    "service_tier": (1, True, [], {}, "no-such-tier"),
    "background": (True,),
    "web_search_options": ({},),
    "modalities": (["audio"], ["text", "audio"]),
    "models": (["gpt-4o-mini"],),
    "provider": ({"order": ["x"]},),
    "extra_body": ({"model": "x"},),
    "tools": ([{"type": "code_interpreter"}], [{"type": "web_search"}], [{"type": "mcp"}]),
}
OTHERS: dict[str, tuple[bytes, dict[str, Any]]] = {
    "messages-maximum": (MESSAGES, {"max_tokens": -1}),
    "messages-maximum-text": (MESSAGES, {"max_tokens": "9"}),
    "messages-maximum-true": (MESSAGES, {"max_tokens": True}),
    "messages-container": (MESSAGES, {"container": "x"}),
    "messages-servers": (MESSAGES, {"mcp_servers": [{"type": "url", "url": "http://x/"}]}),
    "messages-code-tool": (MESSAGES, {"tools": [{"type": "code_execution_20250825"}]}),
    "messages-billing": (MESSAGES, {"billing_policy": {}}),
    "messages-profile": (MESSAGES, {"user_profile_id": "x"}),
    "messages-fallbacks": (MESSAGES, {"fallbacks": [{"model": "claude-haiku-4-5"}]}),
    "messages-stream": (MESSAGES, {"stream": 1}),
    "responses-maximum": (RESPONSES, {"max_output_tokens": 1.5}),
    "responses-stream": (RESPONSES, {"stream": "yes"}),
    "responses-shell": (RESPONSES, {"tools": [{"type": "shell", "environment": {"type": "x"}}]}),
    "responses-image-tool": (RESPONSES, {"tools": [{"type": "image_generation"}]}),
    "responses-mcp-tool": (RESPONSES, {"tools": [{"type": "mcp", "server_url": "http://x/"}]}),
    "responses-pro": (RESPONSES, {"reasoning": {"mode": "pro"}}),
}
BASES: dict[bytes, dict[str, Any]] = {
    MESSAGES: {"model": "claude-sonnet-4-6", "max_tokens": 9, "messages": []},
    RESPONSES: {"model": "gpt-4o", "input": "hi"},
}
CONTENT_TYPES = {
    "form": b"application/x-www-form-urlencoded",
    "multipart": b"multipart/form-data; boundary=x",
    "text": b"text/plain",
    "xml": b"application/xml",
    "utf16": b"application/json; charset=utf-16",
    "utf7": b"application/json; charset=utf-7",
}


def inputs() -> Iterator[Bad]:
    """Yield them, all with a good key and an honest length unless said otherwise."""
    for name, value in VALUES.items():
        body = GOOD_BODY[:-1] + b',"x":' + value + b"}"
        yield Bad(f"json-{name}", 400, request(body=body))
    for name, body in WHOLE.items():
        yield Bad(f"body-{name}", 400, request(body=body))
    good = json.loads(GOOD_BODY)
    for number, model in enumerate(MODELS):
        yield Bad(f"json-model-{number:02}", 400, _json(CHAT, good | {"model": model}))
    for name, values in TYPES.items():
        for number, given in enumerate(values):
            body = _json(CHAT, good | {name: given})
            yield Bad(f"json-{name.replace('_', '-')}-{number:02}", 400, body)
    for name, (path, fields) in OTHERS.items():
        yield Bad(f"json-{name}", 400, _json(path, BASES[path] | fields))
    without = {key: value for key, value in good.items() if key != "model"}
    yield Bad("json-model-missing", 400, _json(CHAT, without))
    for name, kind in CONTENT_TYPES.items():
        twice = GOOD_BODY[:-1] + b',"model":"gpt-4o-mini"}'
        header = b"Content-Type: " + kind
        yield Bad(f"body-called-{name}", 400, request(headers=(header,), body=twice))
    yield Bad("body-none", 400, request(body=b"", length=b""))
    yield Bad("body-of-no-bytes", 400, request(body=b"", length=b"0"))
    yield Bad("body-too-short", 408, request(length=b"100"))
    yield Bad("body-never-comes", 408, request(body=b"", length=b"%d" % len(GOOD_BODY)))
    expects = (b"Expect: 100-continue",)
    yield Bad("body-awaited-and-bad", 400, request(headers=expects, body=b"{"))
    yield Bad("body-awaited-never-comes", 408, request(headers=expects, body=b"", length=b"9"))
    chunked = (b"Transfer-Encoding: chunked",)
    open_end = b'5\r\n{"mod\r\n'
    yield Bad("body-chunks-without-end", 408, request(headers=chunked, body=open_end, length=b""))
    no_chunks = b"0\r\n\r\n"
    yield Bad("body-no-chunks", 400, request(headers=chunked, body=no_chunks, length=b""))
    for name, length in {
        "one-byte": b"33554433",
        "terabyte": b"1099511627776",
        "63-bit": b"9223372036854775807",
        "64-bit": b"18446744073709551615",
    }.items():
        yield Bad(f"body-too-large-{name}", 413, request(body=b"", length=length))


def _json(path: bytes, fields: dict[str, Any]) -> bytes:
    line = b"POST " + path + b" HTTP/1.1"
    return request(line=line, body=json.dumps(fields, separators=(",", ":")).encode())
