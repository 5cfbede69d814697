// npm's openai, unmodified: asks what the golden file asks and writes one JSON line an answer.
// Usage: node openai_client.mjs BASE_URL GOLDEN STREAMED(0|1); run where node_modules lies.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const { default: OpenAI } = createRequire(`${process.cwd()}/`)("openai");

const [, , baseURL, golden, streamed] = process.argv;
const { cases, max_tokens } = JSON.parse(readFileSync(golden, "utf8"));
const client = new OpenAI({ baseURL, apiKey: "none", maxRetries: 0, timeout: 300_000 });

async function ask({ messages, tools, chat_template_kwargs }) {
  // What OpenAI's types do not know is passed on as it is.
  const body = { model: "bottega-tiny", messages, max_tokens, temperature: 0, chat_template_kwargs,
                 return_token_ids: true, ...(tools ? { tools } : {}) };
  if (streamed === "0") {
    const { choices: [choice] } = await client.chat.completions.create(body);
    const calls = (choice.message.tool_calls ?? []).map(
      ({ id, function: { name, arguments: text } }) => [id, name, text]);
    return [choice.token_ids, choice.message.content || null, choice.message.reasoning || null, calls];
  }
  const ids = [], calls = [];
  let content = "", reasoning = "";
  for await (const chunk of await client.chat.completions.create({ ...body, stream: true })) {
    for (const choice of chunk.choices) {
      ids.push(...(choice.token_ids ?? []));
      content += choice.delta.content ?? "";
      reasoning += choice.delta.reasoning ?? "";
      for (const { index, id, function: { name, arguments: text } } of choice.delta.tool_calls ?? []) {
        if (id) calls.push([id, name, ""]);
        calls[index][2] += text ?? "";
      }
    }
  }
  return [ids, content || null, reasoning || null, calls];
}

const models = [];
for await (const model of client.models.list()) models.push(model.id);
if (models.join() !== "bottega-tiny") throw new Error(`models: ${models}`);

const answers = new Array(cases.length);
let next = 0;
const lane = async () => {
  for (let i = next++; i < cases.length; i = next++) answers[i] = await ask(cases[i]);
};
await Promise.all(Array.from({ length: 8 }, lane));
for (const answer of answers) console.log(JSON.stringify(answer));
