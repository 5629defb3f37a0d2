/** The options: what the contract's types cannot hold is refused before any call. */

import { expect, test } from "vitest";
import { Client } from "../src/index.js";
import { grpcTransport } from "../src/node.js";
import { ScriptedService, whole } from "./scripted-service.js";

const { transport } = new ScriptedService(whole());
const client = new Client(transport);

const REFUSED: [object, string][] = [
  [{ stepCount: 4 }, "unknown option stepCount"],
  [{ numInferenceSteps: 1.5 }, "numInferenceSteps must be an integer, not 1.5"],
  [{ width: 2 ** 31 }, "width must be from 0 to 2147483647"],
  [{ width: 256n }, "width must be an integer"],
  [{ seed: 2 ** 53 }, "seed must be a bigint: the number 9007199254740992 is not exact"],
  [{ seed: 2n ** 63n }, "seed must be from 0 to 9223372036854775807"],
  [{ seed: "7" }, "seed must be an integer"],
  [{ guidanceScale: "4" }, "guidanceScale must be a number"],
  [{ scheduler: 4 }, "scheduler must be a string"],
  [{ negativePrompt: "\ud800" }, "negativePrompt must be UTF-8"],
  [{ useCache: "false" }, "useCache must be a boolean"],
  [{ lingerMs: 3_600_001 }, "lingerMs must be from 0 to 3600000"],
  [{ lingerMs: Number.NaN }, "lingerMs must be from 0 to 3600000"],
  [{ timeoutMs: -1 }, "timeoutMs must be from 0 to 99999999"],
];

test.each(REFUSED)("%o is refused", (options, text) => {
  expect(() => client.generate("a", options)).toThrow(text);
});

test("a prompt is a text", () => {
  expect(() => client.generate(7 as unknown as string)).toThrow("prompt must be a string");
});

test("textToImage refuses the options of generate", async () => {
  await expect(client.textToImage("a", { imageCount: 2 } as object)).rejects.toThrow(
    "unknown option",
  );
});

test("options reach the service unchanged", async () => {
  const service = new ScriptedService(whole());
  const options = {
    guidanceScale: 0,
    seed: 9223372036854775807n,
    lingerMs: 2500,
    outputMimeType: "image/webp",
    outputQuality: 80,
    previewEvery: 2,
  };
  await new Client(service.transport).generate("a red circle", options).images();
  const [request] = service.requests;
  expect(request?.inputs).toBe("a red circle");
  expect(request?.parameters).toMatchObject({ guidanceScale: 0, seed: 9223372036854775807n });
  expect(request?.parameters?.width).toBeUndefined();
  expect(request?.linger).toMatchObject({ seconds: 2n, nanos: 500_000_000 });
  expect(request?.output).toMatchObject({ mimeType: "image/webp", quality: 80 });
  expect(request?.preview).toMatchObject({ intervalSteps: 2 });
  expect(request?.generationId).toMatch(/^[\da-f]{32}$/);
});

test("headers of client and call are sent, with the token and the id", async () => {
  const service = new ScriptedService(whole());
  const caller = new Client(service.transport, { token: "secret", headers: { "x-tenant": "a" } });
  const options = { headers: { "x-request-id": "b" }, generationId: "mine", useCache: false };
  await caller.textToImage("a", options);
  expect(Object.fromEntries(service.headers[0] ?? [])).toMatchObject({
    authorization: "Bearer secret",
    "x-generation-id": "mine",
    "x-request-id": "b",
    "x-tenant": "a",
    "x-use-cache": "false",
    "x-wait-for-model": "true",
  });
});

test("an id that fits no header is left to the service", async () => {
  const service = new ScriptedService(whole());
  await new Client(service.transport).textToImage("a", { generationId: "ü\n" });
  expect(service.headers[0]?.has("x-generation-id")).toBe(false);
});

test("a token that cannot be sent is refused and not shown", () => {
  expect(() => new Client(transport, { token: "secret\n" })).toThrow(
    /^token must be visible ASCII/,
  );
});

test.each(["http://localhost:50051", "localhost:0", "localhost:99999", "", "a b"])(
  "%o is no target",
  (target) => {
    expect(() => grpcTransport(target)).toThrow("target must be HOST:PORT");
  },
);

test("half of a client certificate is refused", () => {
  expect(() => grpcTransport("localhost", { tls: { privateKey: "" } })).toThrow("given together");
});
