"""The pictures of the documentation, taken of the dashboard as it runs.

`python -m tests.dashboard.pictures` takes them anew, into docs/images/. What they show is made up;
the server, its answers, charges and pages are real. A browser test takes them too, and looks at
what is in them.
"""

import random
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, ViewportSize

from llmproxy.clock import Clock
from llmproxy.rollups import DAY_MS
from tests.dashboard.browsing import chromium
from tests.dashboard.helpers import CHAT, Desk
from tests.proxy.helpers import MESSAGES, Site, chat, message
from tests.service.helpers import Books, either
from tests.support.proxy import RunningProxy
from tests.support.stub_provider import StubProvider

FOLDER = Path(__file__).parents[2] / "docs" / "images"
WINDOW: ViewportSize = {"width": 1040, "height": 660}
DAYS = 30
MODELS = {"gpt-4o": "openai", "gpt-4o-mini": "openai", "claude-sonnet-4-6": "anthropic"}
PICTURES = {
    "overview.png": ("/dashboard", "Overview"),
    "api-key.png": ("/dashboard/settings/api-keys", "API Keys"),
}
"""Each picture's page, and the heading that is in it."""


@contextmanager
def running_world() -> Iterator[Site]:
    """A proxy with somebody who has used it for a month. Its ledger knows of today alone."""
    home = Path(tempfile.mkdtemp(prefix="llmproxy-pictures-"))
    try:
        with StubProvider() as stub, RunningProxy(home) as proxy:
            stub.handle = either
            proxy.use_provider("openai", f"{stub.url}/v1")
            proxy.use_provider("anthropic", stub.url)
            proxy.start()
            with closing(Books(home)) as books:
                site = Site(proxy, stub, books)
                make_world(site)
                yield site
    finally:
        shutil.rmtree(home)


def make_world(site: Site) -> None:
    """Let there be a user, ann, with some keys, a month behind them, and requests today."""
    run = site.proxy.run
    key = site.proxy.new_user("ann", credit="25")
    run("keys", "create", "ann", "--name", "laptop")
    run("keys", "create", "ann", "--name", "course bot", "--daily-budget", "2", "--expires", "90d")
    _past_days(site)
    for model in ("gpt-4o", "gpt-4o-mini", "gpt-4o"):
        site.proxy.post(CHAT, chat(model=model), key)
    site.proxy.post(MESSAGES, message(), key)
    site.books.settled_wallet("ann")


def _past_days(site: Site) -> None:
    """Write sums of days gone by, and take what they cost off the credit, as requests would."""
    drawn, today = random.Random(3), Clock().now_ms() // DAY_MS
    path = site.proxy.home / "data" / "llmproxy.db"
    connection = sqlite3.connect(path)
    spent_nanousd = 0
    columns = [row[1] for row in connection.execute("PRAGMA table_info(requests_by_day)")]
    for ago in range(1, DAYS):
        if (today - ago) % 7 in {2, 3}:  # weekends
            continue
        for model, provider in MODELS.items():
            requests, cost = drawn.randint(2, 40), drawn.randint(1_000_000, 40_000_000)
            row = dict.fromkeys(columns, 0) | {
                "user_id": 1,
                "api_key_id": 1,
                "day": today - ago,
                "provider": provider,
                "endpoint": "chat/completions",
                "model": model,
                "requests": requests,
                "input": requests * 900,
                "output": requests * 300,
                "cost_nanousd": cost,
                "charged_nanousd": cost,
            }
            spent_nanousd += cost
            places = ", ".join("?" * len(row))
            statement = f"INSERT INTO requests_by_day({', '.join(row)}) VALUES({places})"
            connection.execute(statement, list(row.values()))
    connection.execute(
        "UPDATE wallets SET balance_nanousd = balance_nanousd - ? WHERE user_id = 1",
        (spent_nanousd,),
    )
    connection.commit()
    connection.close()


def take(site: Site, browser: Browser, folder: Path) -> Iterator[tuple[Path, Page]]:
    """Take each picture; yield where it is, while its page is still open."""
    with Desk(site) as desk, browser.new_context(viewport=WINDOW, color_scheme="light") as context:
        page = context.new_page()
        page.goto(site.proxy.url + desk.link("ann"))
        page.get_by_role("button", name="Sign in as ann").click()
        page.get_by_role("heading", name="Overview").wait_for()
        for name, (path, _) in PICTURES.items():
            page.goto(site.proxy.url + path)
            page.screenshot(path=folder / name)
            yield folder / name, page


def main() -> int:
    with running_world() as site, chromium() as browser:
        for path, _ in take(site, browser, FOLDER):
            print(f"{path.name}: {path.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
