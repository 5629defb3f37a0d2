/** The script of the page that the tests open in Chromium. */

import { Client, InvalidRequestError } from "../src/index.js";
import { connectTransport, grpcWebTransport } from "../src/web.js";

export async function generateOnPage(protocol: "gRPC-Web" | "Connect", url: string) {
  const transport = protocol === "Connect" ? connectTransport(url) : grpcWebTransport(url);
  const client = new Client(transport, { headers: { authorization: "Bearer ignored" } });
  const kinds: string[] = [];
  const size: number[] = [];
  for await (const event of client.generate("a red circle", {
    width: 128,
    height: 64,
    numInferenceSteps: 4,
  })) {
    kinds.push(event.type);
    if (event.type !== "image") continue;
    const bitmap = await createImageBitmap(new Blob([event.data], { type: event.mimeType }));
    size.push(bitmap.width, bitmap.height);
  }
  const error = await client.textToImage("a", { width: 1001 }).catch((thrown: unknown) => thrown);
  const violations =
    error instanceof InvalidRequestError ? error.violations.map(({ field }) => field) : [];
  const left = client.generate("a blue square", { numInferenceSteps: 100, width: 64, height: 64 });
  for await (const event of left) if (event.type === "progress") break;
  return { kinds, size, violations, outcome: await client.cancel(left.generationId ?? "") };
}

Object.assign(window, { generateOnPage });
