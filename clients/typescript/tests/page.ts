/** The script of the page that the tests open in Chromium. */

import { Client, InvalidRequestError } from "../src/index.js";
import { connectTransport, grpcWebTransport } from "../src/web.js";

type Protocol = "gRPC-Web" | "Connect";

function transportOf(protocol: Protocol, url: string) {
  return protocol === "Connect" ? connectTransport(url) : grpcWebTransport(url);
}

export async function generateOnPage(protocol: Protocol, url: string) {
  const headers = { authorization: "Bearer ignored" };
  const client = new Client(transportOf(protocol, url), { headers });
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

/** Generate, and call `window.cutConnections` at each of the first steps. */
export async function resumeOnPage(protocol: Protocol, url: string, cutCount: number) {
  const kinds: string[] = [];
  const steps: number[] = [];
  const client = new Client(transportOf(protocol, url));
  const options = { numInferenceSteps: 100, width: 64, height: 64 };
  for await (const event of client.generate("a green heart", options)) {
    kinds.push(event.type);
    if (event.type !== "progress") continue;
    if (steps.push(event.step) <= cutCount) await window.cutConnections();
  }
  return { kinds, steps };
}

declare global {
  interface Window {
    cutConnections(): Promise<void>;
    onPage: { generateOnPage: typeof generateOnPage; resumeOnPage: typeof resumeOnPage };
  }
}

window.onPage = { generateOnPage, resumeOnPage };
