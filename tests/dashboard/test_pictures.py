"""The pictures of the documentation are of the dashboard as it is."""

import struct
from decimal import Decimal
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.dashboard.browsing import chromium
from tests.dashboard.pictures import FOLDER, PICTURES, running_world
from tests.dashboard.pictures import take as take_pictures

BYTES_MAX = 150_000
PNG = b"\x89PNG\r\n\x1a\n"


def size(path: Path) -> tuple[int, int]:
    """Return a PNG's width and height."""
    data = path.read_bytes()
    assert data.startswith(PNG)
    width, height = struct.unpack(">II", data[16:24])
    return width, height


def test_pictures_can_be_taken_and_show_their_pages(tmp_path: Path) -> None:
    taken = set()
    with chromium() as browser, running_world() as site:
        for path, page in take_pictures(site, browser, tmp_path):
            expect(
                page.get_by_role("heading", level=1, name=PICTURES[path.name][1])
            ).to_be_visible()
            assert size(path) == size(FOLDER / path.name)
            if path.name == "overview.png":
                # What was added (25), less what was spent, is what is left.
                left = page.locator("#wallet, .credit").first.locator("[title]").first
                exact = Decimal((left.get_attribute("title") or "").removesuffix(" USD"))
                spent = Decimal(page.locator(".sum strong").inner_text().removeprefix("$"))
                assert round(exact + spent, 2) == 25
            taken.add(path.name)
    assert taken == set(PICTURES)


@pytest.mark.parametrize("name", PICTURES)
def test_the_documentation_shows_each_picture(name: str) -> None:
    assert (FOLDER / name).stat().st_size < BYTES_MAX
    shown = "".join(path.read_text("utf-8") for path in FOLDER.parent.glob("*.md"))
    assert f"](images/{name})" in shown
