"""Owns usage as Gemini reports it (reference wire.md A.6).

`promptTokenCount` includes cached tokens here, and `candidatesTokenCount` leaves thoughts out;
counts of nothing are left out. Must not know events or requests.
"""

from typing import Any, TypedDict

import msgspec

from llmproxy.dialects.answers import NO_COUNTS, UNREADABLE
from llmproxy.dialects.gemini_requests import normal_tier
from llmproxy.usage import Leg, Usage, UsageError, count, info_count, with_media

PROMPT, TOOL_USE = "promptTokenCount", "toolUsePromptTokenCount"
CACHED = "cachedContentTokenCount"
CANDIDATES, THOUGHTS = "candidatesTokenCount", "thoughtsTokenCount"
TOTAL = "totalTokenCount"
TIER = "serviceTier"
PROMPT_DETAILS, TOOL_USE_DETAILS = "promptTokensDetails", "toolUsePromptTokensDetails"
CACHE_DETAILS, CANDIDATES_DETAILS = "cacheTokensDetails", "candidatesTokensDetails"


_Count = int | None
_Record = TypedDict(  # noqa: UP013 - as a class it would have the names that the API has
    "_Record",
    {
        "promptTokenCount": _Count,
        "toolUsePromptTokenCount": _Count,
        "cachedContentTokenCount": _Count,
        "candidatesTokenCount": _Count,
        "thoughtsTokenCount": _Count,
        "serviceTier": Any,
        "promptTokensDetails": msgspec.Raw,
        "toolUsePromptTokensDetails": msgspec.Raw,
        "cacheTokensDetails": msgspec.Raw,
        "candidatesTokensDetails": msgspec.Raw,
    },
    total=False,
)
"""What may be left out; what is odd about it is found when the last record is read."""
_OF_CACHE = frozenset({CACHED, CACHE_DETAILS})
LEFT_OUT = tuple(name for name in _Record.__annotations__ if name not in _OF_CACHE)
"""What streams leave out at their end, though an earlier record told it."""
_record_decoder = msgspec.json.Decoder(_Record)
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
        self._told: dict[str, Any] = {}

    def take(self, raw: msgspec.Raw) -> None:
        """Take the record of one chunk."""
        self._last = raw
        try:
            record = _record_decoder.decode(raw)
        except UNREADABLE:
            return
        if record.get(PROMPT):
            self._told.pop(CACHED, None)
            self._told.pop(CACHE_DETAILS, None)
        self._told.update({name: value for name, value in record.items() if value})

    def fill(self, name: str, raw: msgspec.Raw) -> bool:
        """Take one member alone, which is `missing`, of an earlier record; say whether it has it.

        A record that tells nothing of it but its name, or cannot be read, has not.
        """
        try:
            value = _record_decoder.decode(raw).get(name)
        except UNREADABLE:
            return False
        if value:
            self._told[name] = value
        return bool(value)

    def follow(self, earlier: "UsageRecords") -> None:
        """Take what no record has told from earlier ones.

        But of the cache: of that a record that tells a prompt tells all.
        """
        for name, value in earlier._told.items():  # noqa: SLF001 - of the same class
            if name not in _OF_CACHE:
                self._told.setdefault(name, value)

    def missing(self) -> list[str]:
        """Return what no record has told of what may be left out."""
        return [name for name in LEFT_OUT if name not in self._told]

    def raw(self) -> bytes | None:
        """Return the last record as it came, with what it left out; None when there is none."""
        if self._last is None:
            return None
        try:
            last = _object_decoder.decode(self._last)
        except UNREADABLE:
            return bytes(self._last)
        told = self._told
        names = _Record.__annotations__
        missing = {name: told[name] for name in names if name in told and not last.get(name)}
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
    tier = usage.get(TIER)
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
        leg = with_media(leg, _input_media(usage), _media(usage, CANDIDATES_DETAILS))
        cached_audio = min(_media(usage, CACHE_DETAILS)[0], cached)
        leg = msgspec.structs.replace(leg, cache_read_audio=cached_audio)
    return Usage((leg,), service_tier=normal_tier(tier if isinstance(tier, str) else None))


def _input_media(usage: dict[str, Any]) -> tuple[int, int]:
    """Return the fresh input tokens of audio and of images: what was not read from the cache."""
    prompt, cached = _media(usage, PROMPT_DETAILS), _media(usage, CACHE_DETAILS)
    tool_use = _media(usage, TOOL_USE_DETAILS)
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
