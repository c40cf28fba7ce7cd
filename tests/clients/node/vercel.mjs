// The Vercel AI SDK with its OpenAI provider, as its users use it. Prints one JSON document of what came.
import fs from "node:fs";
import { createOpenAI } from "@ai-sdk/openai";
import { APICallError, generateImage } from "ai";

const openai = createOpenAI({ baseURL: process.env.OPENAI_BASE_URL, apiKey: process.env.OPENAI_API_KEY });
const model = openai.image("gpt-image-2");

const { images, warnings } = await generateImage({ model, prompt: "a boat", size: "1024x1024", n: 2 });

const edited = await generateImage({
  model,
  prompt: { text: "snow", images: [fs.readFileSync("input.png")] },
  size: "1024x1024",
});

const error = await generateImage({ model, prompt: "a boat", size: "16x16", maxRetries: 0 }).catch(
  (thrown) => thrown,
);

console.log(
  JSON.stringify({
    images: images.map((image) => image.base64),
    warnings: warnings.length,
    edited: edited.image.base64,
    error: [APICallError.isInstance(error), error.statusCode, error.isRetryable],
  }),
);
