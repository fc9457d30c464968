"""Owns the report: the comparison of both sources, and all else that a person must decide on.

Must not change what the catalog says.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from decimal import Decimal

from scripts.catalog_generator.data import price_text
from scripts.catalog_generator.genai_prices import ModelPrice, price_at, thresholds
from scripts.catalog_generator.litellm import thousands


@dataclass
class Report:
    """What a person must see before committing a new catalog."""

    disagreements: list[str] = field(default_factory=list)
    names_refused: list[str] = field(default_factory=list)
    by_time: list[str] = field(default_factory=list)
    ending: list[str] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    dearer_media: list[str] = field(default_factory=list)
    dearest_of_media: list[str] = field(default_factory=list)
    without_limits: list[str] = field(default_factory=list)
    from_litellm: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    only_litellm: list[str] = field(default_factory=list)

    def show(self, counts: dict[str, Counter[str]]) -> None:
        """Print everything."""
        for provider, count in sorted(counts.items()):
            print(f"{provider}: {dict(sorted(count.items()))}")
        sections: dict[str, list[str]] = {
            "The sources disagree (genai-prices was kept)": self.disagreements,
            "Names of litellm left out, priced otherwise by genai-prices": self.names_refused,
            "Prices that depend on time": self.by_time,
            "Prices that end on a known day (prices_until)": self.ending,
            "Other media cost more than the text price that is listed": self.dearer_media,
            "Models for images: what costs more than text": self.dearest_of_media,
            "No limits known; counted as reasoning": self.without_limits,
            "Listed by litellm only, left out": self.only_litellm,
        }
        sections |= self.left_out | self.from_litellm
        for title, lines in sections.items():
            shown = sorted(lines)
            print(f"\n{title}: {len(shown)}", *shown, sep="\n  ")

    def cross_check(self, key: str, prices: ModelPrice, listed: dict[str, str]) -> None:
        """Note every base and tier price on which the two sources differ."""
        if not listed:
            return
        fee = price_at(prices.web_searches_kcount, 0)
        if fee is not None and fee != Decimal(listed.get("web_search_1k", fee)):
            line = f"{key} web_search_1k: {price_text(fee)}, litellm {listed['web_search_1k']}"
            self.disagreements.append(line)
        ours = {
            "input": prices.input_mtok,
            "output": prices.output_mtok,
            "cache_read": prices.cache_read_mtok,
            "cache_write": prices.cache_write_mtok,
        }
        above_by_tier = {thousands(above): above for above in thresholds(prices)}
        tiers = {name.partition(">")[2] for name in listed if ">" in name and "@" not in name}
        for tier in sorted({"", *above_by_tier, *tiers}):
            above = above_by_tier.get(tier, 0)
            for name, price in ours.items():
                full = f"{name}>{tier}" if tier else name
                mine = price_at(price, above) if above or not tier else None
                theirs = Decimal(listed[full]) if full in listed else None
                if mine != theirs and (mine or theirs):
                    lower = " (ours is lower)" if theirs and mine and mine < theirs else ""
                    line = f"{key} {full}: {_or_none(mine)}, litellm {_or_none(theirs)}{lower}"
                    self.disagreements.append(line)

    def note_media(self, key: str, prices: ModelPrice, mode: str) -> None:
        """Note what other media cost where that is more than text does."""
        pairs = ("input_audio_mtok", "input_image_mtok", "input_video_mtok", "output_image_mtok")
        dearer = [
            f"{name.removesuffix('_mtok')} {price}"
            for name in pairs
            if (price := price_at(getattr(prices, name), 0)) is not None
            and price > (price_at(getattr(prices, name.partition("_")[0] + "_mtok"), 0) or 0)
        ]
        if dearer:
            notes = self.dearest_of_media if mode == "image" else self.dearer_media
            notes.append(f"{key}: {', '.join(dearer)}")


def _or_none(price: Decimal | None) -> str:
    return "none" if price is None else price_text(price)
