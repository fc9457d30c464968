"""Owns the texts of programs: what stands in their files, or is typed into their forms."""

from llmproxy.client_settings.client import Client

CLAUDE_CODE = Client(
    "claude-code",
    "Claude Code",
    "json",
    """\
{
  "env": {
    "ANTHROPIC_BASE_URL": "http://127.0.0.1:8000/v1/anthropic",
    "ANTHROPIC_AUTH_TOKEN": "llmp_…"
  }
}
""",
    provider="anthropic",
    model="claude-sonnet-5-5",
    text_with_model="""\
{
  "env": {
    "ANTHROPIC_BASE_URL": "http://127.0.0.1:8000/v1/anthropic",
    "ANTHROPIC_AUTH_TOKEN": "llmp_…",
    "ANTHROPIC_MODEL": "claude-sonnet-5-5"
  }
}
""",
    place="~/.claude/settings.json",
    notes=(
        "The same two can be set as environment variables.",
        (
            "It asks for up to 64,000 output tokens at a time, and that much is held while it "
            "runs. With little credit, set `CLAUDE_CODE_MAX_OUTPUT_TOKENS` (to `8000`, say) beside "
            "them."
        ),
    ),
)
CODEX = Client(
    "codex",
    "Codex",
    "toml",
    """\
model = "gpt-5"
model_provider = "llmproxy"

[model_providers.llmproxy]
name = "llmproxy"
base_url = "http://127.0.0.1:8000/v1/openai"
env_key = "APP_API_KEY"
wire_api = "responses"
""",
    provider="openai",
    model="gpt-5",
    place="~/.codex/config.toml",
    notes=(
        (
            "It names no maximum, so the model's whole output limit is held while it works: some "
            "2 USD for `gpt-5`, or all that is left when that is less."
        ),
        (
            "Of a 429 it shows the status and the request id alone. Mostly the provider is paused, "
            "or a limit of the key is reached: ask the operator."
        ),
    ),
)
AIDER = Client(
    "aider",
    "aider",
    "sh",
    """\
export OPENAI_API_BASE="http://127.0.0.1:8000/v1/openai"
export OPENAI_API_KEY="$APP_API_KEY"
aider --model openai/gpt-4o
""",
    provider="openai",
    model="gpt-4o",
    notes=(
        (
            "For Anthropic's models: `ANTHROPIC_API_BASE` is `http://127.0.0.1:8000/v1/anthropic`, "
            "the key goes into `ANTHROPIC_API_KEY`, and the model is called `anthropic/MODEL`."
        ),
        "When it is refused for want of credit, it tries again by itself for a minute: Ctrl-C.",
    ),
    tested="replayed",
)
CONTINUE = Client(
    "continue",
    "Continue",
    "yaml",
    """\
name: llmproxy
version: 0.0.1
schema: v1
models:
  - name: gpt-4o
    provider: openai
    model: gpt-4o
    apiBase: http://127.0.0.1:8000/v1/openai/
    apiKey: "llmp_…"
    roles: [chat, edit, apply]
""",
    provider="openai",
    model="gpt-4o",
    place="~/.continue/config.yaml",
    notes=(
        "The slash at the end of `apiBase` belongs there.",
        (
            "For Anthropic's models: `provider: anthropic`, and "
            "`apiBase: http://127.0.0.1:8000/v1/anthropic/v1/`."
        ),
        "What it asks of `fim/completions`, for autocomplete, is not served.",
    ),
    tested="replayed",
)
OPEN_WEBUI = Client(
    "open-webui",
    "Open WebUI",
    "sh",
    """\
export OPENAI_API_BASE_URL="http://127.0.0.1:8000/v1/openai"
export OPENAI_API_KEY="$APP_API_KEY"
open-webui serve
""",
    provider="openai",
    notes=(
        "In a running one: Admin Settings → Connections → OpenAI API, the URL and the key.",
        "In a container 127.0.0.1 is the container itself: use the name of this server's host.",
        "It lists the models that the key may use.",
    ),
    tested="replayed",
)
LLM = Client(
    "llm",
    "llm (by Simon Willison)",
    "yaml",
    """\
- model_id: proxied
  model_name: gpt-4o
  api_base: "http://127.0.0.1:8000/v1/openai"
  api_key_name: llmproxy
  supports_tools: true
""",
    provider="openai",
    model="gpt-4o",
    place="extra-openai-models.yaml, in the folder of `llm logs path`",
    notes=("`llm keys set llmproxy` asks for the key.", "Then: `llm -m proxied 'Tell me a joke.'`"),
)
CURSOR = Client(
    "cursor",
    "Cursor",
    "text",
    """\
OpenAI API Key: llmp_…
Override OpenAI Base URL: http://127.0.0.1:8000/v1/openai
""",
    provider="openai",
    place="Cursor Settings → Models",
    notes=(
        (
            "Cursor does not work with its built-in models (GPT, Claude, Gemini): it sends those "
            "to your base URL in a mixture of formats that no provider takes."
        ),
        (
            "What can work are models that you add under a name of your own and that are served as "
            "chat completions; the operator gives that name a price (`llmproxy catalog set`)."
        ),
        "The requests come from Cursor's own servers, so this server must have a public address.",
    ),
    tested="not",
)
