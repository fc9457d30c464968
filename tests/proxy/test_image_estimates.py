"""What images cost of which the provider does not say it, through the running proxy."""

import json
from collections.abc import Iterator

import pytest

from tests.fixtures import CATALOG
from tests.proxy.conftest import running_site
from tests.proxy.helpers import Site
from tests.support.answers import plain, stream
from tests.support.stub_provider import Out, SeenRequest

IMAGES = "/v1/openai/images/generations"
ABSURD = {"input_tokens": -1, "output_tokens": 9}
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Two models: text in 5 USD, images in 8 and out 32; the one has 4 cents an image beside them.

    That is `gpt-image-both`, the other gpt-image-1.5.
    """
    home = tmp_path_factory.mktemp("images")
    catalog = json.loads(CATALOG.read_bytes())
    entry = catalog["models"]["openai/gpt-image-1.5"]
    prices = {**entry["prices"], "image_1k": "40"}
    catalog["models"]["openai/gpt-image-both"] = {**entry, "aliases": [], "prices": prices}
    (home / "catalog.json").write_text(json.dumps(catalog))
    with running_site(home, {"LLMPROXY_CATALOG_FILE": str(home / "catalog.json")}) as site:
        yield site


@pytest.mark.parametrize(
    ("usage", "basis", "nanousd"),
    [
        ({"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}, "usage", 8_000 + 32_000),
        (None, "usage", 80_000_000),
        (ABSURD, "estimate", 80_000_000),
    ],
)
def test_a_model_with_prices_of_both_costs_its_tokens_or_its_images(
    site: Site, usage: object, basis: str, nanousd: int
) -> None:
    data = [{"url": "https://x/a.png"}] * 2
    site.stub.handle = plain(json.dumps({"data": data, "usage": usage}).encode())
    visitor = site.visitor()
    site.ask(visitor, IMAGES, b'{"model":"gpt-image-both","prompt":"a","n":2,"quality":"low"}')
    site.assert_paid(visitor, state="settled", basis=basis, nanousd=nanousd)


def test_so_it_does_where_a_stream_breaks_off(site: Site) -> None:
    shown = {"type": "image_generation.partial_image", "b64_json": "A" * 3000}
    site.stub.handle = stream([f"data: {json.dumps(shown)}\n\n".encode()])
    visitor = site.visitor()
    site.ask(visitor, IMAGES, b'{"model":"gpt-image-both","prompt":"a","stream":true}')
    site.assert_paid(visitor, state="settled", basis="estimate", nanousd=40_000_000)


def test_tokens_that_a_stream_has_told_before_it_breaks_off_are_the_estimate(site: Site) -> None:
    """As it does not know of an image that is done, it is not billed by the image."""
    usage = {"input_tokens": 10, "output_tokens": 2000, "total_tokens": 2010}
    shown = {"type": "image_generation.partial_image", "b64_json": "A" * 3000, "usage": usage}
    site.stub.handle = stream([f"data: {json.dumps(shown)}\n\n".encode()])
    visitor = site.visitor()
    site.ask(visitor, IMAGES, b'{"model":"gpt-image-both","prompt":"a","stream":true}')
    nanousd = 10 * 8_000 + 2000 * 32_000
    site.assert_paid(visitor, state="settled", basis="estimate", nanousd=nanousd)


@pytest.mark.parametrize(
    "item", [{"image": "A" * 9_000}, {"image_url": {"url": "https://x/a.png"}}]
)
def test_an_image_under_another_name_is_not_free(site: Site, item: dict[str, object]) -> None:
    """1,756 tokens for `medium` and 1024 by 1024: 48 × 48 × 3,048,576 / 4M."""
    site.stub.handle = plain(json.dumps({"data": [item]}).encode())
    visitor = site.visitor()
    body = b'{"model":"gpt-image-1.5","prompt":"a","quality":"medium","size":"1024x1024"}'
    site.ask(visitor, IMAGES, body)
    nanousd = -(-len(body) // 3) * 5_000 + 1_756 * 32_000
    site.assert_paid(visitor, state="settled", basis="estimate", nanousd=nanousd)


@pytest.mark.parametrize(
    ("mib", "images", "tokens"),
    [
        # The bytes / 256 / 3, whether they are read as a whole or passed on as they come.
        (7, 1, 9_558),
        (9, 1, 12_288),
        # More than that of four of 7,024 each.
        (9, 4, 28_096),
    ],
)
def test_the_data_of_a_large_image_is_no_text(
    site: Site, mib: int, images: int, tokens: int
) -> None:
    start, end = b'{"created":1,"data":[{"b64_json":"', b'"}' + b',{"b64_json":"A"}' * (images - 1)
    end += b"]}"
    data = b"A" * (mib * MIB - len(start) - len(end))
    site.stub.handle = plain(start + data + end)
    visitor = site.visitor()
    body = json.dumps({"model": "gpt-image-1.5", "prompt": "a", "quality": "high", "n": images})
    got = site.ask(visitor, IMAGES, body.encode())
    assert len(got.body) == mib * MIB
    nanousd = -(-len(body) // 3) * 5_000 + tokens * 32_000
    site.assert_paid(visitor, state="settled", basis="estimate", nanousd=nanousd)


def test_so_it_is_where_that_breaks_off(site: Site) -> None:
    async def handle(request: SeenRequest, out: Out) -> None:
        await out.head(200, [("content-type", "application/json")], length=9 * MIB + 1)
        await out.chunk(b"{" + b" " * (9 * MIB - 1))
        out.close()

    site.stub.handle = handle
    visitor = site.visitor()
    body = b'{"model":"gpt-image-1.5","prompt":"a","quality":"high"}'
    got = site.ask(visitor, IMAGES, body)
    assert not got.clean_end
    nanousd = -(-len(body) // 3) * 5_000 + 12_288 * 32_000
    site.assert_paid(visitor, state="settled", basis="estimate", nanousd=nanousd)


TWO = json.dumps({"model": "m", "prompt": "a", "quality": "medium", "size": "1024x1024", "n": 2})


@pytest.mark.parametrize(
    "answer", [b"<html>", b'{"created":1}', b'{"images":[{"url":"https://x/a.png"}]}']
)
@pytest.mark.parametrize("model", ["gpt-image-1.5", "gpt-image-both"])
def test_what_cannot_be_read_is_as_many_images_as_were_asked_for(
    site: Site, model: str, answer: bytes
) -> None:
    """Two of 1,756 tokens, or of 4 cents; that the answer is a success says that there are some."""
    site.stub.handle = plain(answer)
    visitor, body = site.visitor(), TWO.replace('"m"', f'"{model}"').encode()
    assert site.ask(visitor, IMAGES, body).body == answer
    by_tokens = -(-len(body) // 3) * 5_000 + 2 * 1_756 * 32_000
    nanousd = by_tokens if model == "gpt-image-1.5" else 80_000_000
    row = site.assert_paid(visitor, state="settled", basis="estimate", nanousd=nanousd)
    assert row["reason"] == "the answer is not the expected JSON"


@pytest.mark.parametrize(
    "answer",
    [
        *(b'{"data":[]}', b'{"data":[{"b64_json":null,"index":0}]}', b'{"error":{"code":"x"}}'),
        *(b'{"error":{"code":"x"},"data":"y"}', b""),
    ],
)
def test_an_answer_that_says_that_there_are_none_is_free(site: Site, answer: bytes) -> None:
    site.stub.handle = plain(answer)
    visitor = site.visitor()
    site.ask(visitor, IMAGES, TWO.replace('"m"', '"gpt-image-both"').encode())
    site.assert_released(visitor)


def test_what_a_filter_kept_back_is_no_image(site: Site) -> None:
    data = [{"b64_json": None, "index": 0}, {"b64_json": "A" * 9_000, "index": 1}]
    site.stub.handle = plain(json.dumps({"data": data}).encode())
    visitor = site.visitor()
    site.ask(visitor, IMAGES, TWO.replace('"m"', '"gpt-image-both"').encode())
    site.assert_paid(visitor, state="settled", basis="usage", nanousd=40_000_000)


def test_a_shown_image_under_another_name_is_not_free(site: Site) -> None:
    """100 tokens, and of 3,043 bytes a 768th each: (300 + 3,043 / 256) / 3."""
    shown = b'{"type":"image.shown","preview":"%b"}' % (b"A" * 3_006)
    site.stub.handle = stream([b"data: %b\n\n" % shown])
    visitor = site.visitor()
    body = b'{"model":"gpt-image-1.5","prompt":"a","stream":true}'
    site.ask(visitor, IMAGES, body)
    nanousd = -(-len(body) // 3) * 5_000 + 104 * 32_000
    site.assert_paid(visitor, state="settled", basis="estimate", nanousd=nanousd)
