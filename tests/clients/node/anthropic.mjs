// The @anthropic-ai/sdk package, as a user writes it.
import Anthropic from "@anthropic-ai/sdk";
import { ASKED, collect, modelFor, REFUSALS, SITUATIONS, step, tell, WEATHER } from "./shared.mjs";

const client = (situation = "ok") =>
  new Anthropic({
    baseURL: `${SITUATIONS[situation].url}/v1/anthropic`,
    apiKey: SITUATIONS[situation].key,
  });

const fields = (text, situation = "ok", more = {}) => ({
  model: modelFor(situation, "claude-sonnet-5-5"),
  max_tokens: 500,
  messages: [{ role: "user", content: text }],
  ...more,
});

const create = (text, situation = "ok", more = {}) =>
  client(situation).messages.create(fields(text, situation, more));

const tool = { name: "get_weather", description: "Tells the weather.", input_schema: WEATHER };

await step("plain", async () => {
  const answer = await create("Tell me a joke");
  return [answer.content[0].text, answer.usage.output_tokens];
});
await step("streamed", async () => {
  const message = await client().messages.stream(fields("Tell me a joke")).finalMessage();
  return [message.content[0].text, message.usage.output_tokens];
});
await step("tool", async () => {
  const [block] = (await create(ASKED, "ok", { tools: [tool] })).content;
  return [block.name, block.input];
});
await step("counted", async () => {
  const { max_tokens, ...asked } = fields("Tell me a joke");
  return (await client().messages.countTokens(asked)).input_tokens;
});
await step("break", async () =>
  collect(await create("Write 12 words [demo:break]", "ok", { stream: true })),
);
await step("failing", () => create("hello [demo:server-error]", "failing"));
for (const situation of REFUSALS) await step(situation, () => create("hello", situation));
tell();
