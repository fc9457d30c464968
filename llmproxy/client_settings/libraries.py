"""Owns the texts of what is used from a shell or from code: curl, SDKs and what is built on them.

The key comes from the environment, so that it stands in no program.
"""

from llmproxy.client_settings.client import Client

SHELL = Client(
    "shell",
    "Shell: the two variables",
    "sh",
    """\
export BASE_URL="http://127.0.0.1:8000"
export APP_API_KEY="llmp_…"
""",
    notes=(
        (
            "OpenAI's SDKs read `OPENAI_BASE_URL` (`http://127.0.0.1:8000/v1/openai`) and "
            "`OPENAI_API_KEY` by themselves, Anthropic's `ANTHROPIC_BASE_URL` "
            "(`http://127.0.0.1:8000/v1/anthropic`) and `ANTHROPIC_AUTH_TOKEN`: where these are "
            "set, programs need no change."
        ),
    ),
)
CURL = Client(
    "curl",
    "curl",
    "sh",
    """\
curl "http://127.0.0.1:8000/v1/openai/chat/completions" \\
  -H "Authorization: Bearer $APP_API_KEY" \\
  -H "Content-Type: application/json" \\
  -d '{
    "model": "gpt-4o",
    "messages": [{"role": "user", "content": "Tell me a joke."}],
    "max_tokens": 50
  }'
""",
    provider="openai",
    model="gpt-4o",
)
OPENAI_PYTHON = Client(
    "openai-python",
    "OpenAI SDK for Python",
    "python",
    """\
import os

from openai import OpenAI

client = OpenAI(
    base_url="http://127.0.0.1:8000/v1/openai",
    api_key=os.environ["APP_API_KEY"],
)
answer = client.chat.completions.create(
    model="gpt-4o",
    messages=[{"role": "user", "content": "Tell me a joke."}],
)
print(answer.choices[0].message.content)
""",
    provider="openai",
    model="gpt-4o",
)
OPENAI_NODE = Client(
    "openai-node",
    "OpenAI SDK for Node",
    "js",
    """\
import OpenAI from "openai";

const client = new OpenAI({
  baseURL: "http://127.0.0.1:8000/v1/openai",
  apiKey: process.env.APP_API_KEY,
});
const answer = await client.chat.completions.create({
  model: "gpt-4o",
  messages: [{ role: "user", content: "Tell me a joke." }],
});
console.log(answer.choices[0].message.content);
""",
    provider="openai",
    model="gpt-4o",
)
ANTHROPIC_PYTHON = Client(
    "anthropic-python",
    "Anthropic SDK for Python",
    "python",
    """\
import os

from anthropic import Anthropic

client = Anthropic(
    base_url="http://127.0.0.1:8000/v1/anthropic",
    api_key=os.environ["APP_API_KEY"],
)
answer = client.messages.create(
    model="claude-sonnet-5-5",
    max_tokens=500,
    messages=[{"role": "user", "content": "Tell me a joke."}],
)
print(answer.content[0].text)
""",
    provider="anthropic",
    model="claude-sonnet-5-5",
)
ANTHROPIC_NODE = Client(
    "anthropic-node",
    "Anthropic SDK for Node",
    "js",
    """\
import Anthropic from "@anthropic-ai/sdk";

const client = new Anthropic({
  baseURL: "http://127.0.0.1:8000/v1/anthropic",
  apiKey: process.env.APP_API_KEY,
});
const answer = await client.messages.create({
  model: "claude-sonnet-5-5",
  max_tokens: 500,
  messages: [{ role: "user", content: "Tell me a joke." }],
});
console.log(answer.content[0].text);
""",
    provider="anthropic",
    model="claude-sonnet-5-5",
)
LANGCHAIN = Client(
    "langchain",
    "LangChain",
    "python",
    """\
import os

from langchain_openai import ChatOpenAI

llm = ChatOpenAI(
    base_url="http://127.0.0.1:8000/v1/openai",
    api_key=os.environ["APP_API_KEY"],
    model="gpt-4o",
)
print(llm.invoke("Tell me a joke.").content)
""",
    provider="openai",
    model="gpt-4o",
    notes=("`ChatAnthropic` takes `http://127.0.0.1:8000/v1/anthropic` in the same way.",),
)
LLAMAINDEX = Client(
    "llamaindex",
    "LlamaIndex",
    "python",
    """\
import os

from llama_index.llms.openai import OpenAI

llm = OpenAI(
    api_base="http://127.0.0.1:8000/v1/openai",
    api_key=os.environ["APP_API_KEY"],
    model="gpt-4o",
)
print(llm.complete("Tell me a joke."))
""",
    provider="openai",
    model="gpt-4o",
    notes=(
        (
            "For a model whose name LlamaIndex does not know, take `OpenAILike` of "
            "`llama_index.llms.openai_like`, with the same settings and `is_chat_model=True`."
        ),
    ),
)
VERCEL_AI_SDK = Client(
    "vercel-ai-sdk",
    "Vercel AI SDK",
    "js",
    """\
import { createOpenAI } from "@ai-sdk/openai";
import { generateText } from "ai";

const openai = createOpenAI({
  baseURL: "http://127.0.0.1:8000/v1/openai",
  apiKey: process.env.APP_API_KEY,
});
const { text } = await generateText({ model: openai("gpt-4o"), prompt: "Tell me a joke." });
console.log(text);
""",
    provider="openai",
    model="gpt-4o",
    notes=(
        (
            "`createAnthropic` of `@ai-sdk/anthropic` takes `http://127.0.0.1:8000/v1/anthropic` "
            "in the same way."
        ),
    ),
)
GOOGLE_GENAI = Client(
    "google-genai",
    "Google Gen AI SDK for Python",
    "python",
    """\
import os

from google import genai

client = genai.Client(
    api_key=os.environ["APP_API_KEY"],
    http_options=genai.types.HttpOptions(base_url="http://127.0.0.1:8000/v1/gemini"),
)
answer = client.models.generate_content(model="gemini-3.8-flash", contents="Tell me a joke.")
print(answer.text)
""",
    provider="gemini",
    model="gemini-3.8-flash",
)
GOOGLE_GENAI_NODE = Client(
    "google-genai-node",
    "Google Gen AI SDK for Node",
    "js",
    """\
import { GoogleGenAI } from "@google/genai";

const client = new GoogleGenAI({
  apiKey: process.env.APP_API_KEY,
  httpOptions: { baseUrl: "http://127.0.0.1:8000/v1/gemini" },
});
const answer = await client.models.generateContent({
  model: "gemini-3.8-flash",
  contents: "Tell me a joke.",
});
console.log(answer.text);
""",
    provider="gemini",
    model="gemini-3.8-flash",
)
