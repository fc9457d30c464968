"""The shipped catalog is what its script makes of its sources, and the report names what differs.

The script runs with genai-prices in the version that the catalog names, in an environment of its
own.
"""

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.clients.conftest import WITHIN_S
from tests.clients.environments import ROOT, python_of

SHIPPED = ROOT / "model_catalog.json"
TITLE = re.compile(r"\nThe sources disagree \(genai-prices was kept\): (\d+)\n((?:  .+\n)+)")


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The file that the script writes for the shipped one's date, and what it prints."""
    output = tmp_path_factory.mktemp("generated") / "model_catalog.json"
    updated = json.loads(SHIPPED.read_bytes())["updated"]
    done = subprocess.run(
        [
            *(python_of("genai_prices"), "-m", "scripts.generate_catalog"),
            *("--date", updated, "--output", str(output)),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return output, done.stdout


def test_the_shipped_catalog_is_made_again_byte_for_byte(generated: tuple[Path, str]) -> None:
    assert generated[0].read_bytes() == SHIPPED.read_bytes()


def test_the_disagreements_of_both_sources_are_listed(generated: tuple[Path, str]) -> None:
    found = TITLE.search(generated[1])
    assert found is not None, generated[1]
    lines = [line.strip() for line in found[2].splitlines()]
    assert len(lines) == int(found[1]) > 0
    # Known ones: Mistral's names for the newest are older in one list than in the other.
    assert "mistral/mistral-large-latest input: 2, litellm 0.5" in lines
    assert "mistral/mistral-large-latest output: 6, litellm 1.5" in lines
    # Both agree on every base price of Anthropic's.
    assert not [one for one in lines if re.match(r"anthropic/\S+ (input|output|cache_\w+): ", one)]


def test_the_last_day_of_known_prices_is_written_and_reported(generated: tuple[Path, str]) -> None:
    models = json.loads(generated[0].read_bytes())["models"]
    ending = {
        name: entry["prices_until"] for name, entry in models.items() if "prices_until" in entry
    }
    # It doubles on 2027-01-01; opus 4.6 has changed long ago, and does not again.
    assert ending["gemini/gemini-3.6-flash"] == "2026-12-31"
    assert "anthropic/claude-opus-4-6" not in ending
    _, _, report = generated[1].partition("\nPrices that end on a known day (prices_until): ")
    count, _, lines = report.partition("\n")
    told = [line.strip().split(": ") for line in lines.partition("\n\n")[0].splitlines()]
    assert dict(told) == ending
    assert int(count) == len(ending)
