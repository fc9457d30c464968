"""The checks of `doctor --online`: do providers answer, and do their clocks agree with ours."""

from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import groupby
from typing import TYPE_CHECKING

from llmproxy.cli import opening, output
from llmproxy.cli.checks import Check
from llmproxy.cli.provider_check import Checked, check_keys

if TYPE_CHECKING:
    from llmproxy.probe import Probe

CLOCK_SLACK_S = 60


def check_online() -> Iterator[Check]:
    """Ask each provider for its models, with each key that is not disabled."""
    checked = check_keys(None)
    if not checked:
        advice = "Add one: llmproxy provider-keys add openai"
        yield Check("online", "warn", "there is no provider key to try", advice)
        return
    for _, keys in groupby(checked, key=lambda each: each.provider.name):
        yield _check_provider(list(keys))
    yield check_provider_clocks([each.probe for each in checked], opening.now_ms())


def _check_provider(keys: list[Checked]) -> Check:
    """A provider that answers to none of its keys is wrong; one key of several is worth a word."""
    provider = keys[0].provider
    failed = [each for each in keys if each.probe.result != "ok"]
    if not failed:
        with_keys = output.counted(len(keys), "key")
        message = f"{provider.name} answers to {with_keys}: {keys[0].probe.message}"
        return Check("online", "ok", message)
    said = "; ".join(
        f"key {each.key.name!r} {each.probe.result}: {each.probe.message}" for each in failed
    )
    advice = f"Look closer: llmproxy providers check {provider.name}"
    status = "fail" if len(failed) == len(keys) else "warn"
    return Check("online", status, f"{provider.name} at {provider.base_url}: {said}", advice)


def check_provider_clocks(probes: "list[Probe]", now_ms: int) -> Check:
    """Compare our clock with the Date of the answers; the nearest one counts, others may be off."""
    ahead_s = [
        now_ms // 1000 - int(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp())
        for moment in (_date(probe.date) for probe in probes)
        if moment is not None
    ]
    name = "online clock"
    if not ahead_s:
        return Check(name, "ok", "no provider said what time it is")
    nearest_s = min(ahead_s, key=abs)
    if abs(nearest_s) <= CLOCK_SLACK_S:
        return Check(name, "ok", "agrees with the providers'")
    side = "ahead of" if nearest_s > 0 else "behind"
    message = f"this machine's clock is {abs(nearest_s):,} s {side} the providers'"
    return Check(name, "warn", message, "Set the clock, such as by NTP.")


def _date(text: str) -> datetime | None:
    try:
        return parsedate_to_datetime(text)
    except ValueError:
        return None
