// Runs third-party Node clients against a gateway: the counterpart of clients.py.
//
// Reads a JSON object from standard input and writes one line of JSON for each of its `cases`: the
// image's bytes in base64 or the exception, and the requests that the gateway has seen.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const job = JSON.parse(readFileSync(0, "utf8"));
const { prompt } = job;
let base, token, model, parameters, width, height, steps, extra;

function begin(given) {
  ({ base, token, model, parameters } = given);
  ({ width, height, num_inference_steps: steps } = parameters);
  const { guidance_scale, scheduler, negative_prompt, seed } = parameters;
  extra = { guidance_scale, scheduler, negative_prompt, seed };
}

const require = createRequire(`${job.modules}/`);
const load = (name) => import(pathToFileURL(require.resolve(name)));

if (job.is_impatient) {
  // How often a client asks again is of interest, not how long it waits in between.
  const wait = globalThis.setTimeout;
  const isOfClient = () => new Error().stack.includes("node_modules");
  globalThis.setTimeout = (callback, milliseconds, ...rest) =>
    wait(callback, milliseconds < 20_000 && isOfClient() ? 0 : milliseconds, ...rest);
}

const download = async (url) => Buffer.from(await (await fetch(url)).arrayBuffer());

// @huggingface/inference

const toGateway = (url) =>
  String(url)
    .replace("https://router.huggingface.co", base)
    .replace("https://huggingface.co", base);

async function huggingface(provider, { version = "", endpointUrl, keeps = false } = {}) {
  const { InferenceClient } = await load(`@huggingface/inference${version}`);
  const options = { fetch: (url, init) => fetch(toGateway(url), init) };
  const client = new InferenceClient(token, endpointUrl ? { endpointUrl } : options);
  const blob = await client.textToImage(
    {
      ...(endpointUrl ? {} : { provider, model, urlTransform: toGateway }),
      inputs: prompt,
      parameters: { ...parameters },
    },
    { outputType: "blob", retry_on_error: keeps },
  );
  return Buffer.from(await blob.arrayBuffer());
}

// the examples for `fetch`, word for word but for the address

async function post(path) {
  const response = await fetch(`${base}${path}`, {
    headers: { Authorization: `Bearer ${token}`, "Content-Type": "application/json" },
    method: "POST",
    body: JSON.stringify({ inputs: prompt, parameters, model }),
  });
  if (!response.ok) throw new Error(`${response.status} ${await response.text()}`);
  return Buffer.from(await (await response.blob()).arrayBuffer());
}

// @fal-ai/client

async function fal(configuration, method) {
  const image_size = { width, height };
  const input = { prompt, image_size, num_inference_steps: steps, ...extra };
  const { createFalClient } = await load("@fal-ai/client");
  const client = createFalClient({ credentials: token, ...configuration });
  const { data } = await client[method](model, { input });
  return download(data.images[0].url);
}

const falProxy = () => ({ proxyUrl: { url: `${base}/fal-proxy`, when: "always" } });
const falMiddleware = () => ({
  requestMiddleware: async (request) => ({
    ...request,
    url: request.url
      .replace("https://queue.fal.run", `${base}/fal-queue`)
      .replace("https://fal.run", `${base}/fal-ai`),
  }),
});

// replicate

async function replicate(mode, reference) {
  const { default: Replicate } = await load("replicate");
  const client = new Replicate({ auth: token, baseUrl: `${base}/replicate/v1` });
  const wait = mode === "poll" ? { mode: "poll", interval: 50 } : { mode: "block" };
  const input = { prompt, width, height, num_inference_steps: steps, ...extra };
  const [output] = await client.run(reference, { input, wait });
  return Buffer.from(await (await output.blob()).arrayBuffer());
}

// together-ai and openai

async function together(format) {
  const { default: Together } = await load("together-ai");
  const client = new Together({ apiKey: token, baseURL: `${base}/together/v1` });
  const body = { model, prompt, width, height, steps, ...extra };
  const response = await client.images.generate(
    format ? { ...body, response_format: format } : body,
  );
  const [image] = response.data;
  return format ? Buffer.from(image.b64_json, "base64") : download(image.url);
}

async function openai(root) {
  const { default: OpenAI } = await load("openai");
  const client = new OpenAI({ apiKey: token, baseURL: `${base}${root}` });
  const size = `${width}x${height}`;
  const response = await client.images.generate({
    model,
    prompt,
    size,
    num_inference_steps: steps,
    ...extra,
  });
  return Buffer.from(response.data[0].b64_json, "base64");
}

async function openaiStream() {
  const { default: OpenAI } = await load("openai");
  const client = new OpenAI({ apiKey: token, baseURL: `${base}/v1` });
  const ids = [];
  for await (const each of client.models.list()) ids.push(each.id);
  if (ids.join() !== "shapes") throw new Error(`models: ${ids}`);
  const options = { stream: true, partial_images: 1, size: `${width}x${height}` };
  const body = { model, prompt, ...options, num_inference_steps: steps, ...extra };
  let last;
  for await (const event of await client.images.generate(body)) last = event;
  if (last.type !== "image_generation.completed") throw new Error(last.type);
  return Buffer.from(last.b64_json, "base64");
}

// Vercel's AI SDK

globalThis.AI_SDK_LOG_WARNINGS = false; // it would write them to the standard output

async function aiSdk(name, options) {
  const { generateImage } = await load("ai");
  const provider = await load(`@ai-sdk/${name}`);
  const create = Object.entries(provider).find(([key]) => key.startsWith("create"))[1];
  const { seed, ...others } = { num_inference_steps: steps, ...extra };
  const isOpenAI = name === "openai-compatible"; // which sends no seed of its own
  const result = await generateImage({
    model: create(options).imageModel(model),
    prompt,
    size: `${width}x${height}`,
    providerOptions: isOpenAI ? { safelight: { seed, ...others } } : { [name]: others },
    ...(isOpenAI ? {} : { seed }),
  });
  return Buffer.from(result.image.uint8Array);
}

const old = "-4.13.21";
const clients = {
  huggingface_endpoint_url: () =>
    huggingface(undefined, { endpointUrl: `${base}/hf-inference/models/${model}` }),
  "huggingface_hf-inference": () => huggingface("hf-inference"),
  "huggingface_fal-ai": () => huggingface("fal-ai"),
  huggingface_replicate: () => huggingface("replicate"),
  huggingface_together: () => huggingface("together"),
  "huggingface_patient_hf-inference": () => huggingface("hf-inference", { keeps: true }),
  "huggingface_old_fal-ai": () => huggingface("fal-ai", { version: old }),
  huggingface_old_nebius: () => huggingface("nebius", { version: old }),
  fetch_hf_inference: () => post(`/hf-inference/models/${model}`),
  fetch_fal: () => post(`/fal-ai/${model}`),
  fetch_nebius: () => post("/nebius/v1/images/generations"),
  fetch_replicate: () => post(`/replicate/v1/models/${model}/predictions`),
  fetch_together: () => post("/together/v1/images/generations"),
  fal_proxy_subscribe: () => fal(falProxy(), "subscribe"),
  fal_proxy_run: () => fal(falProxy(), "run"),
  fal_middleware_subscribe: () => fal(falMiddleware(), "subscribe"),
  fal_middleware_run: () => fal(falMiddleware(), "run"),
  replicate_run: () => replicate("block", model),
  replicate_version: () => replicate("block", `${model}:${job.version}`),
  replicate_poll: () => replicate("poll", model),
  together_b64: () => together("base64"),
  together_url: () => together(),
  openai_b64: () => openai("/v1"),
  openai_nebius: () => openai("/nebius/v1"),
  openai_stream: openaiStream,
  ai_sdk_openai: () =>
    aiSdk("openai-compatible", { name: "safelight", apiKey: token, baseURL: `${base}/v1` }),
  ai_sdk_replicate: () =>
    aiSdk("replicate", { apiToken: token, baseURL: `${base}/replicate/v1` }),
  ai_sdk_fal: () => aiSdk("fal", { apiKey: token, baseURL: `${base}/fal-ai` }),
};

const recorded = async () => (await fetch(`${base}/recorded`)).json();

for (const given of job.cases) {
  begin(given);
  await recorded();
  let outcome;
  try {
    outcome = { image: (await clients[given.client]()).toString("base64") };
  } catch (error) {
    outcome = { exception: error.constructor.name, message: String(error.message ?? error) };
  }
  console.log(JSON.stringify({ ...outcome, requests: await recorded() }));
}
