"""Owns the ready-made settings that are shown with a new API key."""

from typing import NamedTuple


class Snippet(NamedTuple):
    """A piece of settings or code to be copied."""

    id: str
    title: str
    text: str


def snippets(base_url: str, api_key: str) -> list[Snippet]:
    """Return what makes a client use this server; the texts are those of the user guide."""
    return [
        Snippet("shell", "Settings", _SHELL.format(base_url=base_url, api_key=api_key)),
        Snippet("curl", "curl", _CURL),
        Snippet("python", "Python", _PYTHON),
        Snippet("node", "Node", _NODE),
        Snippet("langchain", "LangChain", _LANGCHAIN),
        Snippet(
            "claude-code",
            "Claude Code: ~/.claude/settings.json",
            _filled(_CLAUDE_CODE, base_url, api_key),
        ),
        Snippet("codex", "Codex: ~/.codex/config.toml", _filled(_CODEX, base_url, api_key)),
    ]


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
