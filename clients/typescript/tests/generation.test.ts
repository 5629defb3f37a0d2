/** A generation: resumed when its stream breaks, cancelled when its caller leaves. */

import { Code } from "@connectrpc/connect";
import { expect, test } from "vitest";
import {
  CallCancelledError,
  Client,
  DeadlineExceededError,
  type GenerateOptions,
  InternalServiceError,
  InvalidRequestError,
  ProtocolError,
  QueueFullError,
  ServiceUnavailableError,
} from "../src/index.js";
import {
  accepted,
  broken,
  COMPLETED,
  failure,
  image,
  progress,
  ScriptedService,
  type Step,
  whole,
} from "./scripted-service.js";

async function generate(
  service: ScriptedService,
  options: GenerateOptions = {},
): Promise<string[]> {
  const kinds: string[] = [];
  for await (const event of new Client(service.transport).generate("a red circle", options)) {
    kinds.push(event.type === "progress" ? `progress ${event.step}` : event.type);
  }
  return kinds;
}

const BREAKS = [
  Code.Unavailable,
  Code.Internal,
  Code.Canceled,
  Code.Aborted,
  Code.Unknown,
  Code.DeadlineExceeded,
];

test.each(BREAKS.map((code) => [Code[code], code] as const))(
  "a stream broken by %s is resumed with the same request, and each event comes once",
  async (_, code) => {
    const begun = [accepted(), progress(1), ...image().slice(0, 2)];
    const service = new ScriptedService(
      [...begun, broken(code)],
      [accepted(), progress(2), ...image(), COMPLETED],
    );
    const kinds = await generate(service);
    expect(kinds).toEqual(["accepted", "progress 1", "progress 2", "image", "completed"]);
    expect(service.requests).toHaveLength(2);
    expect(service.requests[1]).toEqual(service.requests[0]);
    expect(service.requests[0]?.generationId).toBeTruthy();
    expect(service.cancelledIds).toEqual([]);
  },
);

test.each<[string, Step]>([
  ["internal", failure(Code.Internal, "INTERNAL")],
  ["cancelled", failure(Code.Canceled, "CANCELLED")],
  ["stopping", failure(Code.Unavailable, "STOPPING")],
  ["a refusal of a proxy", broken(Code.Unauthenticated)],
])("a failure that is no break is thrown: %s", async (_, end) => {
  const service = new ScriptedService([accepted(), progress(1), end]);
  await expect(generate(service)).rejects.toThrow();
  expect(service.callCount).toBe(1);
});

test("a stream is not resumed without a linger", async () => {
  const service = new ScriptedService([accepted(), broken()]);
  await expect(generate(service, { lingerMs: 0 })).rejects.toThrow(InternalServiceError);
  expect(service.callCount).toBe(1);
  expect(service.requests[0]?.generationId).toBe("");
});

test("a stream that breaks after its last event is complete", async () => {
  const service = new ScriptedService([...whole(), broken()]);
  expect(await generate(service)).toHaveLength(4);
  expect(service.callCount).toBe(1);
});

test("a stream that ends early breaks the contract, and is cancelled", async () => {
  const service = new ScriptedService([accepted()]);
  await expect(generate(service, { generationId: "mine" })).rejects.toThrow(ProtocolError);
  expect(service.cancelledIds).toEqual(["mine"]);
});

test("calls wait as long as the service asks, and not at all below 0", async () => {
  const busy = failure(Code.Unavailable, "STOPPING", { pushbackMs: "300" });
  const service = new ScriptedService([busy], whole());
  const startedAt = performance.now();
  await generate(service);
  expect(performance.now() - startedAt).toBeGreaterThan(295);
  const final = new ScriptedService(
    [failure(Code.Unavailable, "STOPPING", { pushbackMs: "-1" })],
    whole(),
  );
  await expect(generate(final)).rejects.toThrow(ServiceUnavailableError);
  expect(final.callCount).toBe(1);
});

test("a wait that would pass the deadline is not begun", async () => {
  const service = new ScriptedService([
    failure(Code.Unavailable, "STOPPING", { pushbackMs: "60000" }),
  ]);
  await expect(generate(service, { timeoutMs: 50_000 })).rejects.toThrow(ServiceUnavailableError);
});

test("attempts get what is left of the time-out, in whole milliseconds", async () => {
  const service = new ScriptedService([accepted(), broken()], whole());
  await generate(service, { timeoutMs: 20_000.5 });
  const [first = 0, second = 0] = service.timeoutsMs;
  expect(first).toBeGreaterThan(19_000);
  expect(second).toBeLessThanOrEqual(first - 50);
});

test("a time-out ends the call and cancels by the id", async () => {
  const service = new ScriptedService([accepted(), "hold"]);
  const options = { timeoutMs: 100, generationId: "mine" };
  await expect(generate(service, options)).rejects.toThrow(DeadlineExceededError);
  expect(service.cancelledIds).toEqual(["mine"]);
  expect(service.callCount).toBe(1);
});

test("leaving the loop cancels by the id, with the client's token", async () => {
  const service = new ScriptedService([accepted(), progress(1), "hold"]);
  const client = new Client(service.transport, { token: "secret" });
  for await (const event of client.generate("a", { generationId: "mine" })) {
    if (event.type === "progress") break;
  }
  expect(service.cancelledIds).toEqual(["mine"]);
  expect(service.headers.at(-1)?.get("authorization")).toBe("Bearer secret");
  expect(service.headers.at(-1)?.get("x-generation-id")).toBe("mine");
});

test("an aborted signal cancels, and so does cancel()", async () => {
  const service = new ScriptedService([accepted(), "hold"]);
  const controller = new AbortController();
  const client = new Client(service.transport);
  const aborted = client.generate("a", { generationId: "one", signal: controller.signal });
  const cancelled = client.generate("a", { generationId: "two" });
  for (const [generation, leave] of [
    [aborted, () => controller.abort()],
    [cancelled, () => cancelled.cancel()],
  ] as const) {
    const reading = (async () => {
      for await (const event of generation) if (event.type === "accepted") setTimeout(leave);
    })();
    await expect(reading).rejects.toThrow(CallCancelledError);
    await expect(generation.images()).rejects.toThrow(CallCancelledError);
  }
  expect(service.cancelledIds).toEqual(["one", "two"]);
});

test("aborting ends the wait between two attempts", async () => {
  const service = new ScriptedService([
    failure(Code.Unavailable, "STOPPING", { pushbackMs: "60000" }),
  ]);
  const client = new Client(service.transport);
  const signal = AbortSignal.timeout(100);
  await expect(client.listModels({ signal })).rejects.toThrow(CallCancelledError);
  await expect(client.textToImage("a", { signal })).rejects.toThrow(CallCancelledError);
});

test("a signal that is already aborted prevents the call", async () => {
  const service = new ScriptedService(whole());
  const images = new Client(service.transport)
    .generate("a", { signal: AbortSignal.abort() })
    .images();
  await expect(images).rejects.toThrow(CallCancelledError);
  expect(service.callCount).toBe(0);
});

test("calls with one response are made again, too", async () => {
  const service = new ScriptedService([broken(Code.Unavailable)], []);
  expect(await new Client(service.transport).listModels()).toEqual([]);
  expect(service.callCount).toBe(2);
});

test("watching resumes, and leaving it cancels nothing", async () => {
  const service = new ScriptedService([accepted(), broken()], [accepted(), progress(2), "hold"]);
  for await (const event of new Client(service.transport).watch("theirs")) {
    if (event.type === "progress") break;
  }
  expect(service.callCount).toBe(2);
  expect(service.cancelledIds).toEqual([]);
});

test("images waits for the end, and textToImage returns the bytes with their type", async () => {
  const client = new Client(new ScriptedService(whole()).transport);
  const blob = await client.textToImage("a");
  expect([blob.type, blob.size]).toEqual(["image/png", 300]);
  const generation = client.generate("a");
  expect(await generation.images()).toHaveLength(1);
  expect(generation.accepted?.generationId).toBe("a");
});

test("errors have all violations and the time to wait", async () => {
  const invalid = failure(Code.InvalidArgument, "INVALID_REQUEST", { field: "parameters.width" });
  await expect(generate(new ScriptedService([invalid]))).rejects.toMatchObject({
    constructor: InvalidRequestError,
    violations: [{ field: "parameters.width", description: "from 1 to 2" }],
  });
  const full = failure(Code.ResourceExhausted, "QUEUE_FULL", { retryAfterMs: 1500 });
  await expect(generate(new ScriptedService([full]))).rejects.toMatchObject({
    constructor: QueueFullError,
    retryAfterMs: 1500,
  });
});
