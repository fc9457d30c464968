// The openai package for Node, as a user writes it.
import OpenAI from "openai";
import { ASKED, collect, modelFor, REFUSALS, SITUATIONS, step, tell, WEATHER } from "./shared.mjs";

const client = (situation = "ok") =>
  new OpenAI({
    baseURL: `${SITUATIONS[situation].url}/v1/openai`,
    apiKey: SITUATIONS[situation].key,
  });

const chat = (text, situation = "ok", fields = {}) =>
  client(situation).chat.completions.create({
    model: modelFor(situation, "gpt-4o"),
    messages: [{ role: "user", content: text }],
    ...fields,
  });

const respond = (text, fields = {}) =>
  client().responses.create({ model: "gpt-4o", input: text, ...fields });

const chatTool = { type: "function", function: { name: "get_weather", parameters: WEATHER } };
const flatTool = { type: "function", name: "get_weather", parameters: WEATHER, strict: true };

await step("plain", async () => {
  const answer = await chat("Tell me a joke");
  return [answer.choices[0].message.content, answer.usage.total_tokens];
});
await step("streamed", async () => {
  const chunks = await collect(await chat("Tell me a joke", "ok", { stream: true }));
  return chunks.map((chunk) => chunk.choices[0].delta.content ?? "").join("");
});
await step("tool", async () => {
  const answer = await chat(ASKED, "ok", { tools: [chatTool] });
  const { name, arguments: given } = answer.choices[0].message.tool_calls[0].function;
  return [name, JSON.parse(given)];
});
await step("response", async () => {
  const answer = await respond("Tell me a joke");
  return [answer.output_text, answer.usage.output_tokens];
});
await step("response_streamed", async () => {
  const events = await collect(await respond("Tell me a joke", { stream: true }));
  return events.map((e) => (e.type === "response.output_text.delta" ? e.delta : "")).join("");
});
await step("response_tool", async () => {
  const [call] = (await respond(ASKED, { tools: [flatTool] })).output;
  return [call.name, JSON.parse(call.arguments)];
});
await step("embeddings", async () => {
  const answer = await client().embeddings.create({
    model: "text-embedding-3-small",
    input: ["one", "two"],
  });
  return [answer.data.length, answer.data[0].embedding.length, answer.usage.total_tokens];
});
await step("break", async () =>
  collect(await chat("Write 12 words [demo:break]", "ok", { stream: true })),
);
await step("failing", () => chat("hello [demo:server-error]", "failing"));
for (const situation of REFUSALS) await step(situation, () => chat("hello", situation));
tell();
