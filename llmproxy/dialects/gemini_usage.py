"""Owns usage as Gemini reports it (reference wire.md A.6).

`promptTokenCount` includes cached tokens here, and `candidatesTokenCount` leaves thoughts out;
counts of nothing are left out. Must not know events or requests.
"""

from typing import Any

import msgspec

from llmproxy.dialects.answers import NO_COUNTS, UNREADABLE
from llmproxy.dialects.gemini_requests import normal_tier
from llmproxy.usage import Leg, Usage, UsageError, count, info_count, with_media

PROMPT, TOOL_USE = "promptTokenCount", "toolUsePromptTokenCount"
CACHED = "cachedContentTokenCount"
CANDIDATES, THOUGHTS = "candidatesTokenCount", "thoughtsTokenCount"
TOTAL = "totalTokenCount"
CACHE_DETAILS = "cacheTokensDetails"


class _Counts(msgspec.Struct, rename="camel"):
    """The counts that add up; what is odd about them is found when the last record is read."""

    prompt_token_count: int | None = None
    tool_use_prompt_token_count: int | None = None
    cached_content_token_count: int | None = None
    candidates_token_count: int | None = None
    thoughts_token_count: int | None = None


_MEMBERS = {field.encode_name: field.name for field in msgspec.structs.fields(_Counts)}
_counts_decoder = msgspec.json.Decoder(_Counts)
_object_decoder = msgspec.json.Decoder(dict[str, Any])


class UsageRecords:
    """Takes the usage of each chunk of a stream: the last one counts.

    What the last one leaves out, though an earlier one told it, is taken from the last that did:
    streams end so at times. Only what was read from the cache is a part of its own prompt alone:
    a record that tells a prompt, and nothing of the cache, has read nothing there.
    """

    def __init__(self) -> None:
        """Start with nothing taken."""
        self._last: msgspec.Raw | None = None
        self._told = dict.fromkeys((PROMPT, TOOL_USE, CACHED, CANDIDATES, THOUGHTS), 0)

    def take(self, raw: msgspec.Raw) -> None:
        """Take the record of one chunk."""
        self._last = raw
        try:
            counts = _counts_decoder.decode(raw)
        except UNREADABLE:
            return
        told = self._told
        if counts.prompt_token_count:
            told[PROMPT], told[CACHED] = counts.prompt_token_count, 0
        told[CANDIDATES] = counts.candidates_token_count or told[CANDIDATES]
        told[THOUGHTS] = counts.thoughts_token_count or told[THOUGHTS]
        told[CACHED] = counts.cached_content_token_count or told[CACHED]
        told[TOOL_USE] = counts.tool_use_prompt_token_count or told[TOOL_USE]

    def fill(self, name: str, raw: msgspec.Raw) -> bool:
        """Take one count alone, which no record has told, from an earlier one; say whether it has.

        The name is one of those that are `missing`.
        """
        try:
            told = getattr(_counts_decoder.decode(raw), _MEMBERS[name])
        except UNREADABLE:
            return False
        self._told[name] = told or 0
        return bool(told)

    def missing(self) -> list[str]:
        """Return which counts no record has told. That of the cache may be none."""
        return [name for name, told in self._told.items() if not told and name != CACHED]

    def raw(self) -> bytes | None:
        """Return the last record as it came, with what it left out; None when there is none."""
        if self._last is None:
            return None
        try:
            last = _object_decoder.decode(self._last)
        except UNREADABLE:
            return bytes(self._last)
        missing = {name: told for name, told in self._told.items() if told and not last.get(name)}
        return msgspec.json.encode({**last, **missing}) if missing else bytes(self._last)


def read_usage(raw: bytes, searches: int = 0) -> Usage:
    """Return a usage record in the normal form.

    Args:
        raw: the record.
        searches: billed searches, which stand elsewhere in the answer.

    Raises:
        UsageError: not an object, or with counts that are missing or cannot be true.
    """
    try:
        usage = _object_decoder.decode(raw)
    except UNREADABLE as error:
        msg = "usage is not an object"
        raise UsageError(msg) from error
    prompt, tool_use = count(usage.get(PROMPT)), count(usage.get(TOOL_USE))
    cached = count(usage.get(CACHED))
    total = count(usage.get(TOTAL))
    # Beside a total, which has them too, thoughts are no more than information.
    thoughts = (info_count if total else count)(usage.get(THOUGHTS))
    output = count(usage.get(CANDIDATES)) + thoughts
    if not (prompt or total):
        raise UsageError(NO_COUNTS)
    if cached > prompt:
        msg = f"usage contradicts itself: {cached} tokens of the cache in {prompt}"
        raise UsageError(msg)
    # Whatever stands in the total and nowhere else was made, not read.
    output = max(output, total - prompt - tool_use)
    tier = usage.get("serviceTier")
    leg = Leg(
        input=prompt + tool_use - cached,
        cache_read=cached,
        output=output,
        reasoning=min(thoughts, output),
        web_searches=searches,
        # What its tools have read is a sum over their rounds; the prompt was read in one.
        round_input=prompt if tool_use else 0,
    )
    if b'"AUDIO"' in raw or b'"IMAGE"' in raw:  # of few answers; the details cost more to look at
        leg = with_media(leg, _input_media(usage), _media(usage, "candidatesTokensDetails"))
        cached_audio = min(_media(usage, CACHE_DETAILS)[0], cached)
        leg = msgspec.structs.replace(leg, cache_read_audio=cached_audio)
    return Usage((leg,), service_tier=normal_tier(tier if isinstance(tier, str) else None))


def _input_media(usage: dict[str, Any]) -> tuple[int, int]:
    """Return the fresh input tokens of audio and of images: what was not read from the cache."""
    prompt, cached = _media(usage, "promptTokensDetails"), _media(usage, CACHE_DETAILS)
    tool_use = _media(usage, "toolUsePromptTokensDetails")
    audio, image = (
        max(0, told - read) + used
        for told, read, used in zip(prompt, cached, tool_use, strict=True)
    )
    return audio, image


def _media(usage: dict[str, Any], details: str) -> tuple[int, int]:
    """Return the tokens of audio and of images that a list of details tells."""
    listed = usage.get(details)
    if not listed or not isinstance(listed, list):
        return 0, 0
    told = {"AUDIO": 0, "IMAGE": 0}
    for one in listed:
        modality = one.get("modality") if isinstance(one, dict) else None
        if isinstance(modality, str) and modality in told:
            told[modality] += info_count(one.get("tokenCount"))
    return told["AUDIO"], told["IMAGE"]
