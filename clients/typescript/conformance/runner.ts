/** The runner of the TypeScript client, for the kit in clients/conformance. */

import { createInterface } from "node:readline";
import { fromJson, type JsonValue } from "@bufbuild/protobuf";
import type { Transport } from "@connectrpc/connect";
import { GenerateRequestSchema } from "../src/gen/safelight/v1/text_to_image_pb.js";
import { Client, type GenerateOptions, SafelightError } from "../src/index.js";
import { grpcTransport } from "../src/node.js";
import { connectTransport, grpcWebTransport } from "../src/web.js";
import { enumName, errorLine, eventLine, modelLine, toJson } from "./lines.js";

interface Job {
  readonly target: string;
  readonly method: string;
  readonly request: Record<string, string>;
  readonly timeout_ms?: number;
  readonly token?: string;
  readonly metadata?: Record<string, string>;
  readonly leave_after?: number;
}

function generateOptions(json: JsonValue): GenerateOptions {
  const request = fromJson(GenerateRequestSchema, json);
  const { $typeName, $unknown, ...parameters } = { ...request.parameters };
  return {
    ...parameters,
    model: request.model,
    generationId: request.generationId,
    imageCount: request.imageCount,
    outputMimeType: request.output?.mimeType,
    outputQuality: request.output?.quality,
    previewEvery: request.preview?.intervalSteps,
    previewMimeType: request.preview?.mimeType,
    previewMaxSidePx: request.preview?.maxSidePx,
    adapters: Object.fromEntries(request.adapters.map(({ name, scale }) => [name, scale])),
    lingerMs: request.linger && Number(request.linger.seconds) * 1e3 + request.linger.nanos / 1e6,
  };
}

async function run(job: Job, transport: Transport): Promise<void> {
  const client = new Client(transport, {
    token: job.token,
    timeoutMs: job.timeout_ms,
    headers: job.metadata,
  });
  const id = job.request.generation_id ?? "";
  switch (job.method) {
    case "CancelGeneration":
      return say({ state: enumName("GENERATION_STATE", await client.cancel(id)) });
    case "ListModels":
      return say({ models: (await client.listModels()).map(modelLine) });
    case "GetModel":
      return say({ model: modelLine(await client.getModel(job.request.model)) });
  }
  const generation =
    job.method === "WatchGeneration"
      ? client.watch(id)
      : client.generate(job.request.inputs ?? "", generateOptions(job.request));
  let count = 0;
  for await (const event of generation) {
    say(eventLine(event));
    count += 1;
    if (count === job.leave_after) break;
  }
}

/** Make the transport that the command line asks for. */
function transportTo(target: string): Transport & { close?(): void } {
  if (process.argv.includes("--connect")) return connectTransport(target);
  if (process.argv.includes("--grpc-web")) return grpcWebTransport(target);
  return grpcTransport(target);
}

function say(line: object): void {
  process.stdout.write(`${toJson(line)}\n`);
}

for await (const text of createInterface({ input: process.stdin })) {
  const job: Job = JSON.parse(text);
  const transport = transportTo(job.target);
  try {
    await run(job, transport);
  } catch (thrown) {
    if (!(thrown instanceof SafelightError)) throw thrown;
    say(errorLine(thrown));
  } finally {
    transport.close?.();
  }
  process.stdout.write("\n");
}
