"""Generates model_catalog.json. A tool for development time; nothing in llmproxy imports it.

Prices come from genai-prices (MIT). What that lacks (limits, reasoning flags, 12 h cache writes,
regional multipliers, some service tiers) comes from the price list inside the litellm wheel (MIT),
of which `scripts/catalog_data.json` keeps an extract beside a few facts kept by hand. Both
sources are compared; where they disagree, genai-prices stands and the report names it. The
modules in `scripts/catalog_generator` do the work; this one has the command line and the output.

Run from the root of the repository, in an environment of its own:

    python -m venv .venv && . .venv/bin/activate
    pip install msgspec genai-prices==0.2.3
    python -m scripts.generate_catalog --date 2026-11-23

To take a newer extract (nothing of litellm is installed or run):

    pip download litellm==1.109.1 --no-deps
    unzip -p litellm-1.109.1-*.whl litellm/model_prices_and_context_window_backup.json > list.json
    python -m scripts.generate_catalog --extract-limits list.json --litellm-version 1.109.1

All prices are decimal strings or Decimal, in USD per million tokens. Read the report and the
difference of model_catalog.json before committing it.
"""

import argparse
import datetime as dt
import importlib
import importlib.metadata
from collections import Counter, defaultdict
from pathlib import Path

from llmproxy.catalog_parser import parse_catalog
from scripts.catalog_generator.data import PROVIDERS, one_line_each, read_data
from scripts.catalog_generator.entries import Generator
from scripts.catalog_generator.litellm import extract

CATALOG_FILE = Path(__file__).parents[1] / "model_catalog.json"


def generate(day: dt.date, output: Path) -> None:
    """Write the catalog with the prices in force on a day and print the report."""
    data = read_data()
    noon = dt.datetime.combine(day, dt.time(12), dt.UTC)
    generator = Generator(data, noon)
    providers = importlib.import_module("genai_prices.data").providers
    for provider in providers:
        if provider.id in PROVIDERS:
            generator.add_provider(provider)
    sources = {
        "genai-prices": f"{importlib.metadata.version('genai-prices')}, MIT licence",
        "litellm": f"{data['litellm_version']}, MIT licence, price list only",
    }
    catalog = {
        "schema": 1,
        "currency": "USD",
        "unit": "per 1M tokens",
        "updated": day.isoformat(),
        "sources": sources,
        "models": generator.entries,
    }
    text = one_line_each(catalog, ("models",))
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for model in parse_catalog(text.encode(), str(output)).models():
        counts[model.provider].update({model.mode: 1, "aliases": len(model.aliases)})
    output.write_text(text)
    generator.report.show(counts)
    print(f"\n{len(generator.entries)} models, {len(text.encode())} bytes -> {output.name}")


def main() -> None:
    """Run one of the two commands."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--date", type=dt.date.fromisoformat, help="prices in force then")
    parser.add_argument("--output", type=Path, default=CATALOG_FILE)
    parser.add_argument("--extract-limits", type=Path, metavar="LITELLM_JSON")
    parser.add_argument("--litellm-version")
    options = parser.parse_args()
    if options.extract_limits and options.litellm_version:
        extract(options.extract_limits, options.litellm_version)
    elif options.date and not options.extract_limits:
        generate(options.date, options.output)
    else:
        parser.error("give --date, or --extract-limits with --litellm-version")


if __name__ == "__main__":
    main()
