// The @google/genai package, as a user writes it.
import { GoogleGenAI } from "@google/genai";
import { ASKED, collect, modelFor, REFUSALS, SITUATIONS, step, tell, WEATHER } from "./shared.mjs";

const MODEL = "gemini-2.5-flash";
const models = (situation = "ok") =>
  new GoogleGenAI({
    apiKey: SITUATIONS[situation].key,
    httpOptions: { baseUrl: `${SITUATIONS[situation].url}/v1/gemini` },
  }).models;

const fields = (text, situation, config) => ({
  model: modelFor(situation, MODEL),
  contents: text,
  config,
});
const generate = (text, situation = "ok", config = {}) =>
  models(situation).generateContent(fields(text, situation, config));
const stream = async (text, situation = "ok", config = {}) =>
  collect(await models(situation).generateContentStream(fields(text, situation, config)));

const tools = {
  tools: [{ functionDeclarations: [{ name: "get_weather", parametersJsonSchema: WEATHER }] }],
};

await step("plain", async () => {
  const answer = await generate("Tell me a joke");
  const { promptTokenCount, candidatesTokenCount } = answer.usageMetadata;
  return [answer.text, promptTokenCount, candidatesTokenCount];
});
await step("streamed", async () => {
  const chunks = await stream("Tell me a joke");
  const text = chunks.map((chunk) => chunk.text ?? "").join("");
  return [text, chunks.at(-1).usageMetadata.candidatesTokenCount];
});
await step("tool", async () => {
  const [call] = (await generate(ASKED, "ok", tools)).functionCalls;
  return [call.name, call.args];
});
await step("tool_streamed", async () => {
  const chunks = await stream(ASKED, "ok", tools);
  const [call] = chunks.flatMap((chunk) => chunk.functionCalls ?? []);
  return [call.name, call.args];
});
await step("embedded", async () => {
  const { embeddings } = await models().embedContent({
    model: "gemini-embedding-001",
    contents: ["one", "two"],
  });
  return [embeddings.length, embeddings[0].values.length];
});
await step("counted", async () => {
  const counted = await models().countTokens({ model: MODEL, contents: "Tell me a joke" });
  return counted.totalTokens;
});
await step("listed", async () =>
  (await collect(await models().list())).map((model) => model.name),
);
for (const name of ["break", "error-event"])
  await step(name, () => stream(`Write 12 words [demo:${name}]`));
await step("failing", () => generate("hello [demo:server-error]", "failing"));
for (const situation of REFUSALS) {
  await step(situation, () => generate("hello", situation));
  await step(`${situation} streamed`, () => stream("hello", situation));
}
tell();
