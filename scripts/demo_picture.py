"""Draws docs/images/demo.svg: `llmproxy demo` as it looks in a terminal, from a real run.

    .venv/bin/python scripts/demo_picture.py

Run it again when the demo's looks change.
"""

import io
import re
import sys
from decimal import Decimal
from html import unescape
from pathlib import Path

from rich.console import Console

from llmproxy.demo.run import run_demo

PICTURE = Path(__file__).parents[1] / "docs" / "images" / "demo.svg"
WIDTH = 100
BYTES_MAX = 150_000


_LEADING_SPACES = re.compile(
    r'x="(?P<x>[\d.]+)" (?P<y>y="[\d.]+") textLength="(?P<length>[\d.]+)" '
    r"(?P<clip>clip-path=[^>]*)>(?P<spaces>(?:&#160;)+)(?P<text>[^<]+)<"
)


def _without_leading_spaces(found: re.Match[str]) -> str:
    """Return a piece of text moved to where its first letter is: not all viewers keep spaces."""
    spaces = found["spaces"].count(";")
    length = Decimal(found["length"])
    letter = length / len(unescape(found["spaces"] + found["text"]))
    x, left = Decimal(found["x"]) + spaces * letter, length - spaces * letter
    return f'x="{x:.1f}" {found["y"]} textLength="{left:.1f}" {found["clip"]}>{found["text"]}<'


def main() -> int:
    """Run the demo and save what it showed; return the exit code."""
    console = Console(
        record=True,
        file=io.StringIO(),
        width=WIDTH,
        force_terminal=True,
        color_system="truecolor",
        highlight=False,
        markup=False,
        emoji=False,
    )
    code = run_demo(keep=False, as_json=False, console=console)
    svg = console.export_svg(title="llmproxy demo", unique_id="demo")
    # No fonts from elsewhere: the reader's own monospaced one serves.
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    svg = svg.replace("Fira Code, monospace", "ui-monospace, DejaVu Sans Mono, Menlo, monospace")
    svg = _LEADING_SPACES.sub(_without_leading_spaces, svg)
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    PICTURE.write_text(svg, encoding="utf-8")
    print(f"{PICTURE}: {len(svg):,} bytes")
    return code or len(svg) > BYTES_MAX


if __name__ == "__main__":
    sys.exit(main())
