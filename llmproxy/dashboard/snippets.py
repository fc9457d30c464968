"""Owns the ready-made settings that are shown with a new API key."""

from typing import NamedTuple

from llmproxy.catalog import Catalog
from llmproxy.limits import Limits


class Snippet(NamedTuple):
    """A piece of settings or code to be copied."""

    id: str
    title: str
    text: str


def snippets(base_url: str, api_key: str, limits: Limits | None, catalog: Catalog) -> list[Snippet]:
    """Return what makes a client use this server; the texts are those of the user guide.

    Each names a model that the key may use; what its limits leave no model for is left out.
    """
    chat = _allowed_model("openai", "gpt-4o", limits, catalog)
    coding = _allowed_model("openai", "gpt-5", limits, catalog)
    claude = _allowed_model("anthropic", "", limits, catalog)
    made = [Snippet("shell", "Shell", _SHELL.format(base_url=base_url, api_key=api_key))]
    if chat is not None:
        texts = {"curl": _CURL, "Python": _PYTHON, "Node": _NODE, "LangChain": _LANGCHAIN}
        made += [
            Snippet(title.lower(), title, text.replace("gpt-4o", chat))
            for title, text in texts.items()
        ]
    if claude is not None:
        text = _filled(_CLAUDE_CODE, base_url, api_key)
        if limits is not None and limits.models is not None:  # else it chooses one by itself
            text = text.replace('"\n  }', f'",\n    "ANTHROPIC_MODEL": "{claude}"\n  }}')
        made.append(Snippet("claude-code", "Claude Code: ~/.claude/settings.json", text))
    if coding is not None:
        text = _filled(_CODEX, base_url, api_key).replace('"gpt-5"', f'"{coding}"')
        made.append(Snippet("codex", "Codex: ~/.codex/config.toml", text))
    return made


def _allowed_model(
    provider: str, usual: str, limits: Limits | None, catalog: Catalog
) -> str | None:
    """Return a model of a provider for a chat that an API key may use, best the usual one."""
    if limits is None:
        limits = Limits(id=0)
    if not limits.allows_provider(provider):
        return None
    if limits.allows_model(usual):
        return usual
    models = [each.id for each in catalog.models(provider) if each.mode == "chat"]
    return next((each for each in models if limits.allows_model(each)), None)


def _filled(text: str, base_url: str, api_key: str) -> str:
    """Return a text whose braces are its own with address and key in their places."""
    return text.replace("http://127.0.0.1:8000", base_url).replace("llmp_…", api_key)


_SHELL = """\
export BASE_URL="{base_url}"
export APP_API_KEY="{api_key}"
"""
_CURL = """\
curl "$BASE_URL/v1/openai/chat/completions" \\
  -H "Authorization: Bearer $APP_API_KEY" \\
  -H "Content-Type: application/json" \\
  -d '{
    "model": "gpt-4o",
    "messages": [{"role": "user", "content": "Tell me a joke."}],
    "max_tokens": 50
  }'
"""
_PYTHON = """\
import os

from openai import OpenAI

client = OpenAI(
    base_url=os.environ["BASE_URL"] + "/v1/openai",
    api_key=os.environ["APP_API_KEY"],
)
answer = client.chat.completions.create(
    model="gpt-4o",
    messages=[{"role": "user", "content": "Tell me a joke."}],
)
print(answer.choices[0].message.content)
"""
_NODE = """\
import OpenAI from "openai";

const client = new OpenAI({
  baseURL: `${process.env.BASE_URL}/v1/openai`,
  apiKey: process.env.APP_API_KEY,
});
const answer = await client.chat.completions.create({
  model: "gpt-4o",
  messages: [{ role: "user", content: "Tell me a joke." }],
});
console.log(answer.choices[0].message.content);
"""
_LANGCHAIN = """\
import os

from langchain_openai import ChatOpenAI

llm = ChatOpenAI(
    base_url=os.environ["BASE_URL"] + "/v1/openai",
    api_key=os.environ["APP_API_KEY"],
    model="gpt-4o",
)
print(llm.invoke("Tell me a joke.").content)
"""
_CLAUDE_CODE = """\
{
  "env": {
    "ANTHROPIC_BASE_URL": "http://127.0.0.1:8000/v1/anthropic",
    "ANTHROPIC_AUTH_TOKEN": "llmp_…"
  }
}
"""
_CODEX = """\
model = "gpt-5"
model_provider = "llmproxy"

[model_providers.llmproxy]
name = "llmproxy"
base_url = "http://127.0.0.1:8000/v1/openai"
env_key = "APP_API_KEY"
wire_api = "responses"
"""
