// OpenAI's package for Node, as its users use it. Prints one JSON document of what came.
import fs from "node:fs";
import OpenAI from "openai";

const client = new OpenAI({ maxRetries: 0 }); // OPENAI_BASE_URL and OPENAI_API_KEY
const model = "gpt-image-2";
const asked = { model, prompt: "a boat", size: "1024x1024" };

const plain = await client.images.generate({ ...asked, n: 2 });
const linked = await client.images.generate({ ...asked, response_format: "url" });

const events = [];
for await (const event of await client.images.generate({ ...asked, stream: true, partial_images: 2 })) {
  events.push([event.type, event.b64_json]);
}

const edited = await client.images.edit({ ...asked, image: fs.createReadStream("input.png") });

const messages = [{ role: "user", content: "a boat" }];
const completion = await client.chat.completions.create({ model, messages });

let said = "";
for await (const chunk of await client.chat.completions.create({ model, messages, stream: true })) {
  said += chunk.choices[0]?.delta?.content ?? "";
}

const accepted = await client.post("/images/generations", { body: asked, query: { async: "true" } });
const job = await client.get(`/jobs/${accepted.id}`, { query: { wait: "30" } });

const error = await client.images.generate({ ...asked, size: "1x1" }).catch((thrown) => thrown);

console.log(
  JSON.stringify({
    plain: plain.data.map((item) => item.b64_json),
    link: linked.data[0].url,
    events,
    edited: edited.data[0].b64_json,
    content: completion.choices[0].message.content,
    said,
    job: [job.status, job.unsigned_urls.length],
    error: [error instanceof OpenAI.BadRequestError, error.code, error.param],
  }),
);
