// The official `openai` package of Node, unmodified, against BASE_URL. Prints one JSON object of what it saw.
import OpenAI from "openai";

const baseURL = process.env.BASE_URL;
const client = new OpenAI({ baseURL, apiKey: process.env.API_KEY, maxRetries: 0 });
const prompt = "a red heart";

async function errorOf(promise) {
  try {
    await promise;
    return { name: "none" };
  } catch (error) {
    return { name: error.constructor.name, status: error.status, code: error.code, param: error.param };
  }
}

const seen = {};
const drawn = await client.images.generate({ prompt, seed: 7 });
seen.generated = drawn.data[0].b64_json;
seen.usage = drawn.usage.total_tokens;

seen.events = [];
const stream = await client.images.generate({ prompt, seed: 7, stream: true, partial_images: 2 });
for await (const event of stream) {
  seen.events.push(event.type);
  if (event.type === "image_generation.completed") seen.streamed = event.b64_json;
}

seen.unsafe = await errorOf(client.images.generate({ prompt: process.env.UNSAFE_PROMPT }));
seen.invalid = await errorOf(client.images.generate({ prompt, n: 0 }));
seen.wrongKey = await errorOf(new OpenAI({ baseURL, apiKey: "wrong", maxRetries: 0 }).images.generate({ prompt }));
seen.timeout = await errorOf(client.images.generate({ prompt, n: 8 }, { timeout: 5 }));

// The call that timed out holds its place until the server has seen that its connection is closed.
const held = await client.images.generate({ prompt, n: 8, stream: true }, { maxRetries: 5 });
seen.limited = await errorOf(client.images.generate({ prompt }));
for await (const _ of held);
seen.patient = (await client.images.generate({ prompt }, { maxRetries: 5 })).data.length;
seen.models = (await client.models.list()).data.map((model) => model.id);

console.log(JSON.stringify(seen));
