"""Owns the policy by which a request's input is held, and estimated, before it is counted. Pure.

The dialects report what is in a body (`InputFacts`); here it becomes tokens. By default the bound
is an estimate that nearly all requests keep to (reference wire.md C.2, C.3). On a strict server it
is one that none can pass: no tokenizer makes more tokens of a text than it has bytes.
"""

from llmproxy.catalog import Model
from llmproxy.dialects.base import BYTES_PER_TOKEN, InputFacts, RequestFacts
from llmproxy.dialects.sound import GEMINI_SECOND_TOKENS, OPENAI_SECOND_TOKENS
from llmproxy.errors import ApiError

BYTES_PER_TOKEN_ID = 2
"""`[1,2]` has one in two bytes."""
EXTRA_TOKENS = 600
EXTRA_TOKENS_STRICT = 1600
"""For what the provider itself puts around a text."""
TOOLS_TOKENS = 1000
MEDIA_TOKENS = 6000
"""Of an image, or of a document that is linked."""
PDF_PAGE_TOKENS = 3000
THOUGHTS_TOKENS = 25_000
"""Of reasoning that the provider fills in: as much as OpenAI advises to leave room for."""
SEARCH_TOKENS = 20_000
"""Of what one web search brings in."""
ADVISED_BYTES = 48
"""Of a member such as `"max_completion_tokens":123456,` that a client may add on our advice."""


def input_bound(facts: RequestFacts, model: Model, *, is_strict: bool) -> int:
    """Return a bound of a request's input, in tokens.

    Raises:
        ApiError: 400, when a strict server finds no bound.
    """
    given = facts.input
    text_bytes = given.text_bytes
    if facts.output_max is None:
        text_bytes += ADVISED_BYTES
    tools_tokens = TOOLS_TOKENS if given.has_tools else 0
    if is_strict:
        text_tokens = text_bytes + EXTRA_TOKENS_STRICT + tools_tokens
        beside = _stored_tokens(given) + _sound_tokens(given)
        return max(text_tokens + beside, _strict_window(given, model))
    bytes_per_token = BYTES_PER_TOKEN_ID if given.has_token_ids else BYTES_PER_TOKEN
    text_tokens = text_bytes // bytes_per_token + EXTRA_TOKENS + tools_tokens
    sound_tokens = _sound_tokens(given)
    beside = _media_tokens(given) + _stored_tokens(given) + _thought_tokens(given, model)
    tokens = text_tokens + beside + sound_tokens + facts.searches * SEARCH_TOKENS
    if sound_tokens and model.max_input_tokens is not None:
        # By its size sound may be many times longer than what the model listens to.
        return min(tokens, model.max_input_tokens)
    return tokens


def input_estimate(given: InputFacts) -> int:
    """Return the documented estimate of the input of an answer that did not report it."""
    text_tokens = -(-given.text_bytes // BYTES_PER_TOKEN)
    audio_tokens = given.likely_audio_s * OPENAI_SECOND_TOKENS + given.clip_tokens.likely
    beside = _media_tokens(given) + _stored_tokens(given)
    return text_tokens + audio_tokens + beside


def _sound_tokens(given: InputFacts) -> int:
    """Return how much of sound, and of video, there is at most; any provider may listen to it."""
    return given.audio_s * GEMINI_SECOND_TOKENS + given.clip_tokens.most


def _stored_tokens(given: InputFacts) -> int:
    """Return what is read again of the response that a request goes on from: all of it."""
    return given.stored.tokens if given.stored is not None else 0


def _thought_tokens(given: InputFacts, model: Model) -> int:
    """Return what earlier reasoning may amount to that only its id stands for."""
    tokens = given.thoughts_by_id * THOUGHTS_TOKENS
    return tokens if model.max_input_tokens is None else min(tokens, model.max_input_tokens)


def _media_tokens(given: InputFacts) -> int:
    return given.media * MEDIA_TOKENS + given.pdf_pages * PDF_PAGE_TOKENS


def _strict_window(given: InputFacts, model: Model) -> int:
    """Return the most that the model takes, where nothing less is sure; else 0.

    So it is with media, with audio and video of which the size is all that is known, with reasoning
    that the provider fills in, and with earlier context that another model has counted in its own
    tokens.

    Raises:
        ApiError: 400, when that is not known, or the input is read more than once.
    """
    if given.rereads is not None:
        raise not_bounded(
            f"`{given.rereads}` makes the provider read and bill the input again and again",
            "Send the request without it",
            param=given.rereads,
        )
    is_counted_otherwise = given.stored is not None and given.stored.model != model.id
    is_unsure = given.media or given.pdf_pages or given.unsure_clips or given.thoughts_by_id
    if not (is_unsure or is_counted_otherwise):
        return 0
    if model.max_input_tokens is None:
        raise not_bounded(
            "for images, documents, video, audio other than plain WAV, reasoning that is not sent "
            "along and what another model has answered before the model catalog would have to know "
            f"how much input {model.id} takes, and it does not",
            "Send the request with text only, or use another model",
        )
    return model.max_input_tokens


def not_bounded(why: str, instead: str, param: str | None = None) -> ApiError:
    """Return the 400 of a strict server for a request that may cost more than could be held."""
    message = (
        "This server is strict: it takes only requests whose cost has an upper bound, and "
        f"{why}. {instead}."
    )
    return ApiError(400, "option_not_metered", message, param=param)
