"""Gemini's own API through the real server: paths, keys, bytes, broken answers and errors."""

import asyncio
import json
import threading
from collections.abc import Iterator

import pytest

from tests.proxy.gemini import (
    ANSWER,
    ARRAY,
    BASE,
    BODY,
    COST,
    EVENTS,
    GENERATE,
    JSON,
    MODEL,
    STREAM,
    ask,
    gemini_site,
    in_pieces,
)
from tests.proxy.helpers import Site, Visitor, chat
from tests.support.answers import openai_chat, openai_usage, plain, stream
from tests.support.proxy import PROVIDER_KEY
from tests.support.stub_provider import Out, SeenRequest
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with gemini_site(tmp_path_factory.mktemp("gemini")) as site:
        yield site


# --- paths and keys ---


@pytest.mark.parametrize("inner", ["v1beta/", "v1/", ""])
def test_a_plain_answer_passes_and_is_paid(site: Site, inner: str) -> None:
    site.stub.handle = plain(ANSWER)
    path = f"/v1/gemini/{inner}models/{MODEL}:generateContent?key=x&alt=json&fields=candidates"
    got, visitor = ask(site, path)
    assert (got.status, got.body) == (200, ANSWER)
    assert got.header("x-llmproxy-cost-usd") == b"0.00008"
    seen = site.last_request()
    version = inner or "v1beta/"
    assert seen.target == f"/{version}models/{MODEL}:generateContent".encode()
    assert seen.body == BODY
    row = site.assert_paid(visitor, state="settled", basis="usage", nanousd=COST)
    assert (row["endpoint"], row["model"], row["model_served"]) == ("generateContent", MODEL, MODEL)


def test_the_key_goes_where_google_reads_it_and_nothing_that_orders_it_about(site: Site) -> None:
    site.stub.handle = plain(ANSWER)
    visitor = site.visitor()
    headers = {
        "x-goog-api-key": visitor.key,
        "x-goog-fieldmask": "candidates",
        "x-goog-user-project": "other",
        "x-goog-encode-response-if-executable": "base64",
        "X_Goog_FieldMask": "candidates",
    }
    assert site.ask(visitor, GENERATE, BODY, headers).status == 200
    seen = site.last_request()
    assert seen.header("x-goog-api-key") == PROVIDER_KEY.encode()
    google = [name for name, _ in seen.headers if b"goog" in name.lower()]
    assert google == [b"x-goog-api-key"]
    assert seen.header("authorization") is None
    assert visitor.key.encode() not in seen.raw_head


@pytest.mark.parametrize("place", ["header", "query"])
def test_the_api_key_may_stand_where_googles_clients_put_it(site: Site, place: str) -> None:
    site.stub.handle = plain(ANSWER)
    visitor = site.visitor()
    path = GENERATE if place == "header" else f"{GENERATE}?key={visitor.key}"
    headers = {"x-goog-api-key": visitor.key} if place == "header" else {}
    got = site.ask(Visitor(visitor.name, "llmp_none"), path, BODY, headers)
    assert got.status == 200
    assert b"key=" not in site.last_request().target


@pytest.mark.parametrize("method", ["generateContent", "embedContent", "countTokens"])
def test_nothing_but_a_stream_is_asked_for_as_events(site: Site, method: str) -> None:
    site.stub.handle = plain(ANSWER)
    body = b'{"content":{"parts":[{"text":"hi"}]}}' if method == "embedContent" else BODY
    model = "gemini-embedding-001" if method == "embedContent" else MODEL
    got, _ = ask(site, f"{BASE}/{model}:{method}?alt=sse", body)
    assert got.status == 200
    assert site.last_request().target == f"/v1beta/models/{model}:{method}".encode()


@pytest.mark.parametrize("colon", ["%3A", "%3a"])
def test_the_colon_may_be_escaped_and_goes_upstream_as_itself(site: Site, colon: str) -> None:
    site.stub.handle = stream(EVENTS)
    got, visitor = ask(site, f"{BASE}/{MODEL}{colon}streamGenerateContent?alt=sse")
    assert got.status == 200
    wanted = f"/v1beta/models/{MODEL}:streamGenerateContent?alt=sse".encode()
    assert site.last_request().target == wanted
    site.assert_paid(visitor, state="settled", basis="usage", nanousd=COST)


@pytest.mark.parametrize(
    "named", ["x%3Apredict", "x%3A", "a%3Ab%3AgenerateContent", "a%253AcountTokens"]
)
def test_an_escaped_colon_opens_nothing_else(site: Site, named: str) -> None:
    before = len(site.stub.requests)
    got, _ = ask(site, f"{BASE}/{named}")
    assert 400 <= got.status < 500
    assert len(site.stub.requests) == before


def test_the_face_that_speaks_openais_dialect_is_beside_it(site: Site) -> None:
    answer = openai_chat(usage=openai_usage(100, 20), model=MODEL)
    site.stub.handle = plain(answer)
    for path in ("/v1/gemini/chat/completions", "/v1/gemini/v1beta/openai/chat/completions"):
        got, visitor = ask(site, path, chat(model=MODEL))
        assert (got.status, got.body) == (200, answer)
        seen = site.last_request()
        assert seen.target == b"/v1beta/openai/chat/completions"
        assert seen.header("authorization") == f"Bearer {PROVIDER_KEY}".encode()
        assert seen.header("x-goog-api-key") is None
        site.assert_paid(visitor, state="settled", basis="usage", nanousd=COST)


ODD_NAMES = (
    *("..", ".", "", "-x", "%2e%2e", "a%2Fb", "a/b", "a/../b", "gemini-2.5-flash%3AcountTokens"),
    *("a%20b", "a;b", "a@b", "x:generateContent/..", "é", "x" * 129, "gemini%2D2.5-flash"),
)


@pytest.mark.parametrize("name", ODD_NAMES)
def test_no_odd_name_of_a_model_reaches_the_provider(site: Site, name: str) -> None:
    before = len(site.stub.requests)
    for method in ("generateContent", "countTokens"):
        got, _ = ask(site, f"{BASE}/{name}:{method}".encode().decode("latin-1"))
        assert got.status in {400, 404}
    assert len(site.stub.requests) == before


@pytest.mark.parametrize(
    "method", ["batchGenerateContent", "predict", "generateAnswer", "", "generatecontent", "x"]
)
def test_other_methods_are_refused(site: Site, method: str) -> None:
    got, _ = ask(site, f"{BASE}/{MODEL}:{method}")
    assert got.status == 400
    assert got.error()["code"] == "endpoint_not_metered"
    assert f"{BASE}/{{model}}:generateContent" in got.error()["message"]
    says_why = "a batch reports what it used only in its results" in got.error()["message"]
    assert says_why == (method == "batchGenerateContent")


def test_the_lists_of_models(site: Site) -> None:
    visitor = site.visitor()
    for path in ("/v1/gemini/v1beta/models", "/v1/gemini/v1/models", "/v1/gemini/models"):
        with site.send(visitor, "/healthz", b"") as client:  # a connection to ask by hand
            client.send(
                f"GET {path} HTTP/1.1\r\nhost: x\r\nx-goog-api-key: {visitor.key}\r\n\r\n".encode()
            )
            site.take(client)
            listed = json.loads(site.take(client).body)
        if "gemini/v1" in path:
            (model,) = [one for one in listed["models"] if one["name"] == f"models/{MODEL}"]
            assert "generateContent" in model["supportedGenerationMethods"]
            assert model["outputTokenLimit"] == 65_536
        else:
            assert MODEL in [one["id"] for one in listed["data"]]


# --- streams ---


@pytest.mark.parametrize("size", [1, 2, 3, 7, 10_000])
@pytest.mark.parametrize("is_array", [False, True])
def test_a_stream_passes_byte_for_byte_however_it_is_cut(
    site: Site, size: int, is_array: bool
) -> None:
    whole = ARRAY if is_array else b"".join(EVENTS)
    head = JSON if is_array else [("content-type", "text/event-stream")]
    site.stub.handle = in_pieces(whole, size, head)
    got, visitor = ask(site, STREAM if is_array else f"{STREAM}?alt=sse&key=x")
    assert (got.status, got.body, got.clean_end) == (200, whole, True)
    query = b"" if is_array else b"?alt=sse"
    assert (
        site.last_request().target
        == f"/v1beta/models/{MODEL}:streamGenerateContent".encode() + query
    )
    row = site.assert_paid(visitor, state="settled", basis="usage", nanousd=COST)
    assert row["is_stream"]


def test_an_array_arrives_piece_by_piece(site: Site) -> None:
    pieces = [ARRAY[:200], ARRAY[200:]]
    goes_on = threading.Event()

    async def handle(_request: SeenRequest, out: Out) -> None:
        await out.head(200, JSON)
        await out.chunk(pieces[0])
        while not goes_on.is_set():
            await asyncio.sleep(0.005)
        await out.chunk(pieces[1])
        await out.end()

    site.stub.handle = handle
    with site.send(site.visitor(), STREAM, BODY) as client:
        client.recv_head()
        chunks = client.recv_chunks()
        assert next(chunks)[1] == pieces[0]
        goes_on.set()
        assert b"".join(piece for _, piece in chunks) == pieces[1]


ENDS_EARLY = [len(b"".join(EVENTS[:count])) for count in range(3)]


@pytest.mark.parametrize("ends", [True, False], ids=["ended", "broken off"])
@pytest.mark.parametrize("size", [*ENDS_EARLY[1:], ENDS_EARLY[1] + 9])
def test_events_cut_short_end_with_an_error_that_googles_sdks_see(
    site: Site, size: int, ends: bool
) -> None:
    cut = b"".join(EVENTS)[:size]
    site.stub.handle = in_pieces(cut, 50, [("content-type", "text/event-stream")], ends=ends)
    got, visitor = ask(site, f"{STREAM}?alt=sse")
    assert got.clean_end
    assert got.body.startswith(cut)
    # Nothing but data, which begins so: they look at no other events, and at no other place.
    passed, mark, last = got.body.partition(b'\n\ndata: {"error":')
    assert passed.rstrip() == cut.rstrip()
    error = json.loads(b'{"error":' + last)["error"]
    assert mark
    assert (error["code"], error["status"]) == (502, "UNAVAILABLE")
    assert error["reason"] == "upstream_interrupted"
    row = site.ended(visitor)
    assert (row["state"], row["basis"]) == ("settled", "estimate")
    assert row["cost_nanousd"] > 0


@pytest.mark.parametrize("ends", [True, False], ids=["ended", "broken off"])
def test_an_array_cut_at_any_byte_never_ends_cleanly(site: Site, ends: bool) -> None:
    visitor = Visitor(*site.books.user("1000"))
    cuts = range(1, ARRAY.rindex(b"]") + 1, 1 if ends else 13)
    for size in cuts:
        site.stub.handle = in_pieces(ARRAY[:size], size, JSON, ends=ends)
        got = site.ask(visitor, STREAM, BODY)
        assert got.status == 200
        assert not got.clean_end, size
        assert ARRAY[:size].startswith(got.body)
    wait_until(lambda: len(site.books.rows(visitor.name)) == len(cuts))
    rows = site.books.rows(visitor.name)
    assert {row["state"] for row in rows} == {"settled", "released"}
    # Whole objects tell the usage; before the first one nothing is known to have been made.
    whole = [row for row in rows if row["basis"] == "usage"]
    assert all(row["cost_nanousd"] == COST for row in whole)
    assert bool(whole) == (cuts[-1] > ARRAY.rindex(b"}"))


@pytest.mark.parametrize("ends", [True, False], ids=["ended", "broken off"])
def test_an_object_in_no_array_is_a_whole_answer(site: Site, ends: bool) -> None:
    site.stub.handle = in_pieces(ANSWER, 50, JSON, ends=ends)
    got, visitor = ask(site, STREAM)
    assert (got.status, got.body, got.clean_end) == (200, ANSWER, True)
    site.assert_paid(visitor, state="settled", basis="usage", nanousd=COST)


@pytest.mark.parametrize("ends", [True, False], ids=["ended", "broken off"])
@pytest.mark.parametrize("size", [1, len(ANSWER) // 2, len(ANSWER) - 1])
def test_an_object_in_no_array_that_is_cut_short_never_ends_cleanly(
    site: Site, size: int, ends: bool
) -> None:
    site.stub.handle = in_pieces(ANSWER[:size], 50, JSON, ends=ends)
    got, visitor = ask(site, STREAM)
    assert not got.clean_end
    assert ANSWER[:size].startswith(got.body)
    assert site.ended(visitor)["basis"] != "usage"


def test_an_error_within_a_stream_passes_and_is_no_broken_one(site: Site) -> None:
    error = b'data: {"error":{"code":503,"message":"busy","status":"UNAVAILABLE"}}\r\n\r\n'
    site.stub.handle = stream([EVENTS[0], error])
    got, visitor = ask(site, f"{STREAM}?alt=sse")
    assert got.body == EVENTS[0] + error
    assert site.ended(visitor)["reason"] == "the provider ended the answer with an error"


# --- money ---


def test_embeddings_without_usage_are_estimated(site: Site) -> None:
    site.stub.handle = plain(b'{"embedding":{"values":[0.5,0.25]}}')
    body = b'{"content":{"parts":[{"text":"hello"}]}}'
    got, visitor = ask(site, f"{BASE}/gemini-embedding-001:embedContent", body)
    assert got.status == 200
    # 40 bytes / 3, upwards, at 0.15 USD per million tokens
    site.assert_paid(visitor, state="settled", basis="estimate", nanousd=14 * 150)


def test_the_counting_of_tokens_is_free(site: Site) -> None:
    site.stub.handle = plain(b'{"totalTokens":3}')
    poor = Visitor(*site.books.user("0"))
    got = site.ask(poor, f"{BASE}/any-model:countTokens", BODY)
    assert (got.status, got.body) == (200, b'{"totalTokens":3}')
    assert site.last_request().target == b"/v1beta/models/any-model:countTokens"
    site.assert_row(poor, state="settled", basis="none", cost=0)


def test_a_maximum_that_fits_is_written_into_the_config(site: Site) -> None:
    site.stub.handle = plain(ANSWER)
    visitor = Visitor(*site.books.user("0.02"))  # 65,536 tokens would be 0.16 USD
    body = b'{"contents":[{"parts":[{"text":"hi"}]}],"generation_config":{"temperature":0.50}}'
    got = site.ask(visitor, GENERATE, body)
    fitted = got.header("x-llmproxy-max-tokens")
    assert got.status == 200
    assert fitted is not None
    wanted = b'"generation_config":{"maxOutputTokens":%b,"temperature":0.50}' % fitted
    assert site.last_request().body == body.replace(
        b'"generation_config":{"temperature":0.50}', wanted
    )


def test_one_idempotency_key_for_two_models_is_two_requests(site: Site) -> None:
    site.stub.handle = plain(ANSWER)
    visitor = site.visitor()
    once = {"idempotency-key": "one"}
    assert site.ask(visitor, GENERATE, BODY, once).status == 200
    other = f"{BASE}/gemini-2.5-pro:generateContent"
    got = site.ask(visitor, other, BODY, once)
    assert got.error()["reason"] == "idempotency_key_reused"


# --- errors ---


def test_our_errors_are_in_googles_shape_there_and_in_ours_beside_it(site: Site) -> None:
    got, _ = ask(site, f"{BASE}/unknown-x:generateContent")
    error = got.error()
    assert (error["code"], error["status"]) == (400, "INVALID_ARGUMENT")
    assert error["reason"] == "unknown_model_pricing"
    assert error["message"].startswith('Unknown model pricing: "unknown-x" is not in')
    got, _ = ask(site, "/v1/gemini/chat/completions", chat(model="unknown-x"))
    assert got.error()["code"] == "unknown_model_pricing"


def test_without_credit_it_is_a_402_of_googles_shape(site: Site) -> None:
    poor = Visitor(*site.books.user("0.000001"))
    error = site.ask(poor, GENERATE, BODY).error()
    assert (error["code"], error["status"]) == (402, "RESOURCE_EXHAUSTED")
    assert error["reason"] == "insufficient_credit"
    assert error["message"].startswith("Insufficient credit balance — top up or lower max_tokens.")


INVALID = {
    "error": {
        "code": 400,
        "message": "API key not valid. Please pass a valid API key.",
        "status": "INVALID_ARGUMENT",
        "details": [
            {
                "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                "reason": "API_KEY_INVALID",
                "domain": "googleapis.com",
            }
        ],
    }
}


@pytest.mark.parametrize("is_listed", [False, True])
def test_a_key_that_google_does_not_know_is_dead(site: Site, is_listed: bool) -> None:
    body = json.dumps([INVALID] if is_listed else INVALID).encode()
    site.stub.handle = plain(body, 400)
    got, visitor = ask(site, STREAM if is_listed else GENERATE)
    assert got.status == 503
    assert got.error()["reason"] == "no_active_provider_keys"
    site.assert_released(visitor)
    wait_until(lambda: "dead" in {state for state, _ in site.books.key_states("gemini").values()})
    site.books.set_key_states("gemini", "active")


@pytest.mark.parametrize("reason", ["SERVICE_DISABLED", "BILLING_DISABLED"])
def test_what_google_says_of_the_operators_project_does_not_reach_a_user(
    site: Site, reason: str
) -> None:
    details = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason}]
    error = {
        "code": 403,
        "message": "Generative Language API has not been used in project 836259 before.",
        "status": "PERMISSION_DENIED",
        "details": details,
    }
    site.stub.handle = plain(json.dumps({"error": error}).encode(), 403)
    got, visitor = ask(site, GENERATE)
    assert got.status == 503
    assert got.error()["reason"] == "no_active_provider_keys"
    assert b"836259" not in got.body
    site.assert_released(visitor)
    # It is asked about, and refused there as well.
    wait_until(lambda: {state for state, _ in site.books.key_states("gemini").values()} == {"dead"})
    site.books.set_key_states("gemini", "active")


def test_a_clients_own_mistake_passes_as_it_came(site: Site) -> None:
    body = b'{"error":{"code":400,"message":"bad temperature","status":"INVALID_ARGUMENT"}}'
    site.stub.handle = plain(body, 400)
    got, visitor = ask(site, GENERATE)
    assert (got.status, got.body) == (400, body)
    site.assert_released(visitor)
