"""Writes docs/first-run.md: what a person types on the first day, run for real, with its output.

    .venv/bin/python scripts/first_run_transcript.py

Builds the one file and runs everything in a temporary home; needs what `build_zipapp.sh` needs,
and curl. Nothing in the page is written by hand but the sentences between the commands.
"""

import asyncio
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

from llmproxy.demo.provider import DemoProvider

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "first-run.md"
PROVIDER_PORT, PROXY_PORT = 9100, 8000
COMMAND_WITHIN_S = 300.0
STARTS_WITHIN_S = 20.0
URL = f"http://127.0.0.1:{PROXY_PORT}"

HEAD = """\
# The first run

<!-- Made by scripts/first_run_transcript.py, which runs all of it: do not edit. -->

A real transcript, from a clone in `~/llmproxy` with an empty home.
"""

CURL = (
    f"curl -s {URL}/v1/openai/chat/completions \\\n"
    '  -H "Authorization: Bearer $KEY" -H "Content-Type: application/json" \\\n'
    "  -d '{}'"
)
PLAIN = (
    '{"model": "gpt-4o", "max_tokens": 50, "messages": [{"role": "user", "content": "A joke?"}]}'
)
STREAMED = (
    '{"model": "gpt-4o", "stream": true, "max_tokens": 5,\n'
    '       "messages": [{"role": "user", "content": "A haiku, please"}]}'
)
SDK = f"""\
.venv/bin/python - <<'PY'
import os, openai
client = openai.OpenAI(base_url="{URL}/v1/openai", api_key=os.environ["KEY"])
for chunk in client.chat.completions.create(
    model="o4-mini", messages=[{{"role": "user", "content": "A haiku?"}}],
    max_completion_tokens=1000, stream=True,
):
    print(chunk.choices[0].delta.content or "", end="", flush=True)
PY"""

LATEST = "REQUEST_ID"
"""In a command: the id of the latest request, as the last list of them showed it."""

STORY: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        """\
## See it work

One command builds the single file and shows it doing its job. Nothing is configured, no account is
needed, and the demo removes all that it made.""",
        ("./build_zipapp.sh && dist/llmproxy demo",),
    ),
    (
        f"""\
## Run it for real

From here on `llmproxy` is that file, and a small server on port {PROVIDER_PORT} stands in for
OpenAI (leave `providers set` out to use the real one). First a user with credit and an API key.""",
        (
            'export PATH="$PWD/dist:$PATH"',
            "llmproxy users create team-a --rate-multiplier 1.2",
            'llmproxy credits add team-a 5.00 --reason "first top-up"',
            "export KEY=$(llmproxy keys create team-a --name laptop --quiet)",
        ),
    ),
    (
        """\
The provider and its key: from stdin here, asked for hidden on a terminal, never an argument.""",
        (
            f"llmproxy providers set openai --base-url http://127.0.0.1:{PROVIDER_PORT}/v1",
            'echo "$OPENAI_API_KEY" | llmproxy provider-keys add openai',
            f"llmproxy serve --host 127.0.0.1 --port {PROXY_PORT} 2> ~/serve.log &",
        ),
    ),
    (
        """\
A user's first requests: plain, streamed, and with the OpenAI SDK as it is. The streams were not
asked for usage, so no usage comes to the client; the proxy asked for it, and took it out.""",
        (CURL.format(PLAIN), CURL.format(STREAMED), SDK),
    ),
    (
        "What the operator sees.",
        (
            "llmproxy users show team-a --json",
            "llmproxy usage requests",
            "llmproxy usage requests --limit 1 --json",
            f"llmproxy explain {LATEST}",
        ),
    ),
    (
        "A stop to a provider and its end, while the server runs.",
        (
            "llmproxy providers list",
            'llmproxy providers pause openai --reason "bill is high"',
            CURL.format(PLAIN),
            "llmproxy providers resume openai",
        ),
    ),
    (
        "The price list, the proof of the books, the check-up.",
        ("llmproxy catalog list | head -n 6", "llmproxy ledger verify", "llmproxy doctor"),
    ),
    (
        "SIGTERM finishes what runs, settles it, and the server exits with 0.",
        ("kill %1; wait %1; echo $?",),
    ),
)


class Shell:
    """One bash that takes the commands one by one, as a person would type them."""

    def __init__(self, home: Path) -> None:
        """Start it in the clone with an empty home and none of our settings."""
        self._home = home
        environ = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("LLMPROXY_", "XDG_", "VIRTUAL_ENV"))
        }
        pip = Path.home() / ".config" / "pip" / "pip.conf"
        if pip.exists():  # where this machine's pip finds packages
            environ["PIP_CONFIG_FILE"] = str(pip)
        environ |= {"HOME": str(home), "USER": "olga", "OPENAI_API_KEY": "sk-demo-provider-key"}
        self._bash = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=ROOT,
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, command: str) -> str:
        """Run one command; return what it printed, with neutral paths."""
        stdin, stdout = self._bash.stdin, self._bash.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(f"{command}\nprintf '\\n<<<done>>>\\n'\n")
        stdin.flush()
        timer = threading.Timer(COMMAND_WITHIN_S, self._bash.kill)
        timer.start()
        lines: list[str] = []
        for line in stdout:
            if line == "<<<done>>>\n":
                break
            lines.append(line)
        else:
            raise SystemExit(f"bash ended during: {command}\n{''.join(lines)}")
        timer.cancel()
        said = "".join(lines).removesuffix("\n")
        if command.endswith("&"):
            self._wait_for_server()
        return said.replace(str(ROOT), "~/llmproxy").replace(str(self._home), "~")

    @staticmethod
    def _wait_for_server() -> None:
        """Return when a server is there."""
        deadline = time.monotonic() + STARTS_WITHIN_S
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"{URL}/healthz", timeout=1):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.05)
        raise SystemExit("the server did not start; see serve.log")

    def close(self) -> None:
        """End it, and what it started."""
        self._bash.terminate()
        self._bash.wait()


class Provider:
    """The demo provider on a port that is known beforehand, in a thread of its own."""

    def __init__(self) -> None:
        """Start it."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        started = DemoProvider().start(port=PROVIDER_PORT)
        asyncio.run_coroutine_threadsafe(started, self._loop).result()


def tell(shell: Shell) -> str:
    """Return the whole page."""
    parts = [HEAD]
    latest = ""
    for words, commands in STORY:
        lines: list[str] = []
        for told in commands:
            command = told.replace(LATEST, latest)
            print(f"$ {command}", file=sys.stderr)
            said = re.sub(r"\x1b\[[0-9;]*m", "", shell.run(command)).rstrip()
            if found := re.search(r"req_[0-9a-f]{32}", said):
                latest = found[0]
            lines += [f"$ {command}", *said.splitlines()]
            lines += [""] * (said.count("\n") > 3)
        parts.append(words + "\n\n```console\n" + "\n".join(lines).rstrip() + "\n```\n")
    return "\n".join(parts)


def main() -> int:
    """Write the page; return the exit code."""
    Provider()
    with tempfile.TemporaryDirectory(prefix="first-run-") as folder:
        shell = Shell(Path(folder))
        try:
            page = tell(shell)
        finally:
            shell.close()
    PAGE.write_text(page, encoding="utf-8")
    print(f"{PAGE}: {len(page):,} characters")
    return 0


if __name__ == "__main__":
    sys.exit(main())
