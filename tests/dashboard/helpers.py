"""Browsers without a screen: clients that keep cookies, and send what browsers send with forms."""

import itertools
import json
import os
import re
import ssl
from html import unescape
from typing import Any, Self
from urllib.parse import urlsplit

import httpx
from typer.testing import CliRunner

from llmproxy import accounts, audit, sessions
from llmproxy.cli.app import app
from llmproxy.clock import Clock
from tests.proxy.helpers import Site, chat

KEYS = "/dashboard/settings/api-keys"
OWN = {"sec-fetch-site": "same-origin"}
_numbers = itertools.count(1)
CHAT = "/v1/openai/chat/completions"
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""All is plain HTTP here. Left to itself, each client would read all certificate authorities: 70 ms
of CPU, and there are some hundred visitors."""


class Desk:
    """A running dashboard, and the visitors whom it must say goodbye to."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.books = site.books
        self._visitors: list[Visitor] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for visitor in self._visitors:
            visitor.close()

    def link(self, name: str) -> str:
        """Make a link as the command does; return its path."""
        now_ms = Clock().now_ms()
        with self.books.write() as tx:
            secret = sessions.create_link(tx, accounts.find_user(tx, name), now_ms=now_ms)
        return f"/dashboard/sign-in/{secret}"

    def visitor(self, name: str = "", **headers: str) -> "Visitor":
        """Somebody without a session, at an address of their own."""
        number = next(_numbers)
        address = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
        visitor = Visitor(self.site.proxy.url, name, {"x-forwarded-for": address, **headers})
        self._visitors.append(visitor)
        return visitor

    def signed_in(self, **headers: str) -> "Visitor":
        """A user of a new name who has one API key, `test`, and has signed in."""
        return self.sign_in(*self.books.user(), **headers)

    def sign_in(self, name: str, api_key: str, **headers: str) -> "Visitor":
        """A user who exists, signed in."""
        visitor = self.visitor(name, **headers)
        visitor.api_key = api_key
        assert visitor.submit(self.link(name)).status_code == 303
        return visitor

    def operator(self, **headers: str) -> "Visitor":
        """An operator of a new name who has signed in."""
        name, key = self.books.user()
        self.make_operator(name)
        visitor = self.visitor(name, **headers)
        visitor.api_key = key
        assert visitor.submit(self.link(name)).status_code == 303
        return visitor

    def make_operator(self, name: str) -> None:
        """Make a user an operator as the command does."""
        with self.books.write() as tx:
            accounts.set_user(tx, name, now_ms=Clock().now_ms(), is_admin=True)

    def user_id(self, name: str) -> int:
        """Return the id of a user, by which the operator's pages name them."""
        with self.books.database.read() as tx:
            return accounts.find_user(tx, name).id

    def acts(self, actor: str) -> list[tuple[str, str]]:
        """Return what somebody has done by the audit log, the oldest first."""
        with self.books.database.read() as tx:
            found = audit.list_acts(tx, limit=-1, actor=actor)
        return [(each.act, each.details) for each in reversed(found)]

    def run(self, *arguments: str, stdin: str = "") -> str:
        """Run a command on this proxy's home, as in a process of its own; return its stdout.

        In this process: half a second of starting Python is spared. `site.proxy.run` is the
        program itself.
        """
        ours = dict.fromkeys(name for name in os.environ if name.startswith("LLMPROXY_"))
        environ = {**ours, **self.site.proxy.environ}
        done = CliRunner().invoke(
            app, list(arguments), input=stdin, env=environ, prog_name="llmproxy"
        )
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == 0, (arguments, done.stderr)
        return done.stdout

    def json(self, *arguments: str) -> Any:  # noqa: ANN401 - any JSON value
        """Run a command with --json; return the document."""
        return json.loads(self.run(*arguments, "--json"))

    def ask(self, api_key: str, model: str = "gpt-4o") -> int:
        """Send a chat with an API key; return the status."""
        body = chat(model=model)
        return self.site.proxy.post(CHAT, body, api_key).status


class Visitor(httpx.Client):
    """A browser, as far as the server can tell. Redirects are not followed."""

    def __init__(self, url: str, name: str, headers: dict[str, str]) -> None:
        super().__init__(base_url=url, headers=headers, timeout=20, verify=NO_TLS)
        self.name = name
        self.api_key = ""

    def submit(self, path: str, **fields: str) -> httpx.Response:
        """Send a form as a page of ours does."""
        return self.post(path, data=fields, headers=OWN)

    def text(self, path: str) -> str:
        """Return a page's HTML."""
        response = self.get(path)
        assert response.status_code == 200, (path, response.status_code)
        return response.text

    def key_ids(self) -> dict[str, int]:
        """Return the ids of this user's live keys by their names, as the list shows them."""
        links = re.findall(rf'href="{KEYS}/(\d+)">([^<]*)</a>', self.text(KEYS))
        return {unescape(name): int(key_id) for key_id, name in links}

    def create_key(self, name: str, **fields: str) -> str:
        """Make an API key with the form; return it as the page shows it."""
        response = self.submit(KEYS, name=name, **fields)
        assert response.status_code == 200, response.text
        return shown_key(response.text)


def shown_key(html: str) -> str:
    """Return the API key that a page shows."""
    found = re.search(r'<code id="secret"[^>]*>(llmp_\w+)</code>', html)
    assert found, html
    return found[1]


def secret_of(link: str) -> str:
    """Return the secret of a link, with or without a host."""
    return urlsplit(link).path.rpartition("/")[2]
