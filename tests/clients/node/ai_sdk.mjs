// The Vercel AI SDK with three of its providers, as a user writes it.
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { embed, generateText, jsonSchema, streamText, tool } from "ai";
import { ASKED, modelFor, REFUSALS, SITUATIONS, step, tell, WEATHER } from "./shared.mjs";

globalThis.AI_SDK_LOG_WARNINGS = false;

const openai = (situation) =>
  createOpenAI({
    baseURL: `${SITUATIONS[situation].url}/v1/openai`,
    apiKey: SITUATIONS[situation].key,
  });

const MODELS = {
  responses: (situation) => openai(situation)(modelFor(situation, "gpt-4o")),
  chat: (situation) => openai(situation).chat(modelFor(situation, "gpt-4o")),
  compatible: (situation) =>
    createOpenAICompatible({
      name: "llmproxy",
      baseURL: `${SITUATIONS[situation].url}/v1/openai`,
      apiKey: SITUATIONS[situation].key,
    })(modelFor(situation, "gpt-4o")),
  anthropic: (situation) =>
    createAnthropic({
      baseURL: `${SITUATIONS[situation].url}/v1/anthropic`,
      apiKey: SITUATIONS[situation].key,
    })(modelFor(situation, "claude-sonnet-5-5")),
};

const tools = {
  get_weather: tool({ description: "Tells the weather.", inputSchema: jsonSchema(WEATHER) }),
};

for (const [name, model] of Object.entries(MODELS)) {
  await step(`${name} plain`, async () => {
    const { text, usage } = await generateText({ model: model("ok"), prompt: "Tell me a joke" });
    return [text, usage.totalTokens];
  });
  await step(`${name} streamed`, async () => {
    const result = streamText({ model: model("ok"), prompt: "Tell me a joke" });
    let text = "";
    for await (const piece of result.textStream) text += piece;
    return [text, (await result.usage).totalTokens ?? null];
  });
  await step(`${name} tool`, async () => {
    const { toolCalls } = await generateText({ model: model("ok"), prompt: ASKED, tools });
    return [toolCalls[0].toolName, toolCalls[0].input];
  });
}
// Side by side: the AI SDK tries a 429 and a 503 three times, seconds apart, whatever it is told.
await Promise.all(
  Object.entries(MODELS).flatMap(([name, model]) =>
    REFUSALS.map((situation) =>
      step(`${name} ${situation}`, () =>
        generateText({ model: model(situation), prompt: "hello" }),
      ),
    ),
  ),
);
await step("embedded", async () => {
  const model = openai("ok").embedding("text-embedding-3-small");
  return (await embed({ model, value: "one" })).embedding.length;
});
tell();
