// What the scripts share; see tests/clients/python/shared.py, whose form of results this has.
export const SITUATIONS = JSON.parse(process.env.SITUATIONS);
export const REFUSALS = ["poor", "unknown", "wrong", "paused", "keyless"];
export const ASKED = "What is the weather in Paris?";
export const WEATHER = {
  type: "object",
  properties: { city: { type: "string" }, days: { type: "integer" } },
  required: ["city", "days"],
  additionalProperties: false,
};
const results = {};

export const modelFor = (situation, usual) => (situation === "unknown" ? `${usual}-x` : usual);

export async function step(name, run) {
  try {
    results[name] = await run();
  } catch (error) {
    const inner = error.lastError ?? error; // the AI SDK wraps the last of several attempts
    const raised = { type: error.name ?? "Error", text: String(error.message) };
    raised.error_status_code = inner.status ?? inner.statusCode;
    results[name] = { raised, trace: String(error.stack) };
  }
}

export const tell = () => console.log(JSON.stringify(results));

export async function collect(stream) {
  const all = [];
  for await (const each of stream) all.push(each);
  return all;
}
