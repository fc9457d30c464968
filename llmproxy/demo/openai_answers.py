"""The demo provider's OpenAI dialect: which endpoint answers, and the list of models."""

from collections.abc import Callable
from typing import Any

from llmproxy.demo import (
    openai_audio,
    openai_chat,
    openai_completions,
    openai_embeddings,
    openai_images,
    openai_moderations,
    openai_responses,
)
from llmproxy.demo.openai_wire import CREATED_S, RefusalError, error, json_answer, refusal
from llmproxy.demo.replies import Answer, PromptCache, Request

MODELS = ("gpt-4o", "gpt-4o-mini", "gpt-4.1-mini", "gpt-5", "gpt-5-mini", "o3", "o4-mini")

_ENDPOINTS: dict[str, Callable[[Request, PromptCache], Answer]] = {
    "/v1/audio/speech": openai_audio.speak,
    "/v1/audio/transcriptions": openai_audio.transcribe,
    "/v1/chat/completions": openai_chat.answer,
    "/v1/completions": openai_completions.answer,
    "/v1/embeddings": openai_embeddings.answer,
    "/v1/images/generations": openai_images.answer,
    "/v1/moderations": openai_moderations.answer,
    "/v1/responses": openai_responses.answer,
    "/v1/responses/compact": openai_responses.compact,
    "/v1/responses/input_tokens": openai_responses.count_input,
}


def answer(request: Request, cache: PromptCache) -> Answer:
    """Answer one request in OpenAI's dialect, errors in OpenAI's shape."""
    try:
        _refuse_key(request.key)
        if request.method == "GET":
            return _models(request)
        endpoint = _ENDPOINTS.get(request.path) if request.method == "POST" else None
        if endpoint is not None:
            return endpoint(request, cache)
    except RefusalError as refused:
        return refused.answer
    return error(404, f"Invalid URL ({request.method} {request.path})")


def _refuse_key(key: str) -> None:
    if not key:
        message = "You didn't provide an API key: send it as Authorization: Bearer KEY."
        raise refusal(401, message)
    if key.startswith("sk-demo-bad"):
        masked = f"{key[:8]}{'*' * max(len(key) - 12, 1)}{key[-4:]}"
        raise refusal(401, f"Incorrect API key provided: {masked}.", None, "invalid_api_key")
    if key.startswith("sk-demo-quota"):
        message = "You exceeded your current quota, please check your plan and billing details."
        raise refusal(429, message, None, "insufficient_quota")


def _models(request: Request) -> Answer:
    if request.path == "/v1/models":
        return json_answer(request, {"object": "list", "data": [_model(model) for model in MODELS]})
    base, _, model = request.path.rpartition("/")
    if base == "/v1/models" and model in MODELS:
        return json_answer(request, _model(model))
    if base == "/v1/models":
        raise refusal(404, f"The model '{model}' does not exist", "model", "model_not_found")
    raise refusal(404, f"Invalid URL ({request.method} {request.path})")


def _model(model: str) -> dict[str, Any]:
    return {"id": model, "object": "model", "created": CREATED_S, "owned_by": "demo"}
