"""Plain answers of more than can be read at once: billed by their usage, however large they are."""

import json

from tests.proxy.families import PAID
from tests.proxy.helpers import CREDIT_NANOUSD, Site
from tests.support.stub_provider import Handler, Out, SeenRequest

EMBEDDINGS = PAID["embeddings"].path
PIECE_BYTES = 256 * 1024
VECTOR = b"[" + b",".join([b"-0.012345678901234567"] * 3072) + b"]"


def embeddings(count: int, last: bytes) -> bytes:
    vectors = [
        b'{"object":"embedding","index":%d,"embedding":%b}' % (n, VECTOR) for n in range(count)
    ]
    return b'{"object":"list","data":[%b],"model":"text-embedding-3-small"%b}' % (
        b",".join(vectors),
        last,
    )


def answering(body: bytes) -> Handler:
    async def handle(request: SeenRequest, out: Out) -> None:
        await out.head(200, [("content-type", "application/json")], length=len(body))
        for start in range(0, len(body), PIECE_BYTES):
            await out.chunk(body[start : start + PIECE_BYTES])

    return handle


def request_of(count: int) -> bytes:
    texts = ["a text of some five tokens, say"] * count
    return json.dumps({"model": "text-embedding-3-small", "input": texts}).encode()


def test_more_than_64_mib_are_billed_by_their_usage(site: Site) -> None:
    body = embeddings(1100, b',"usage":{"prompt_tokens":5500,"total_tokens":5500}')
    assert len(body) > 64 * 1024 * 1024
    site.stub.handle = answering(body)
    ann = site.visitor()
    got = site.ask(ann, EMBEDDINGS, request_of(1100))
    assert got.body == body
    site.assert_paid(ann, state="settled", basis="usage", nanousd=5500 * 20)


def test_a_large_answer_without_usage_says_so(site: Site) -> None:
    body = embeddings(200, b"")
    site.stub.handle = answering(body)
    ann = site.visitor()
    request = request_of(200)
    site.ask(ann, EMBEDDINGS, request)
    cost = -(-len(request) // 3) * 20
    row = site.assert_paid(ann, state="settled", basis="estimate", nanousd=cost)
    assert row["reason"] == f"no usage at the beginning or end of an answer of {len(body):,} bytes"
    assert site.books.wallet(ann.name) == (CREDIT_NANOUSD - cost, 0)
