/** A real service, by every transport: events, errors, leaving, broken connections, TLS, traces. */

import { createHash } from "node:crypto";
import {
  type Context,
  propagation,
  ROOT_CONTEXT,
  type Span,
  SpanStatusCode,
  type TextMapPropagator,
  type TracerProvider,
} from "@opentelemetry/api";
import { afterAll, expect, inject, test } from "vitest";
import {
  CallCancelledError,
  Client,
  DeadlineExceededError,
  type GenerationEvent,
  GenerationExistsError,
  InvalidRequestError,
  ModelNotFoundError,
  UnauthenticatedError,
} from "../src/index.js";
import { grpcTransport } from "../src/node.js";
import { tracingInterceptor } from "../src/telemetry.js";
import { connectTransport, grpcWebTransport } from "../src/web.js";
import { TcpProxy } from "./tcp-proxy.js";

const servers = inject("servers");
const SMALL = { width: 64, height: 64 };
const grpc = grpcTransport(servers.service);
afterAll(() => grpc.close());

const TRANSPORTS = [
  ["gRPC", grpc],
  ["gRPC-Web through Envoy", grpcWebTransport(servers.envoy)],
  ["Connect through Envoy", connectTransport(servers.envoy)],
  ["gRPC-Web by the gateway", grpcWebTransport(servers.gateway)],
  ["Connect by the gateway", connectTransport(servers.gateway)],
] as const;

test.each(TRANSPORTS)(
  "%s: events arrive in order, and the image is whole",
  async (_, transport) => {
    const events: GenerationEvent[] = [];
    const seed = 2n ** 63n - 1n;
    const options = { seed, numInferenceSteps: 4, previewEvery: 2, width: 128, height: 64 };
    for await (const event of new Client(transport).generate("a red circle", options))
      events.push(event);
    const kinds = events.map(({ type }) => type);
    expect(kinds[0]).toBe("accepted");
    expect(kinds.slice(-2)).toEqual(["image", "completed"]);
    expect(kinds.filter((kind) => kind === "preview").length).toBeGreaterThan(0);
    expect(events[0]).toMatchObject({ model: "shapes", parameters: { seed, width: 128 } });
    const image = events.find((event) => event.type === "image");
    expect(image).toMatchObject({
      imageIndex: 0,
      mimeType: "image/png",
      width: 128,
      height: 64,
      seed,
    });
    expect(
      createHash("sha256")
        .update(image?.data ?? "")
        .digest("hex"),
    ).toBe(image?.sha256);
    expect(events.at(-1)).toMatchObject({
      stepCount: 4,
      cache: "bypass",
      usage: { imageCount: 1, pixelCount: 8192 },
    });
  },
);

test.each(TRANSPORTS)("%s: errors have their class and all violations", async (_, transport) => {
  const client = new Client(transport);
  const invalid = client.textToImage("a", { width: 1001, numInferenceSteps: 0, guidanceScale: -1 });
  const error = await invalid.catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(InvalidRequestError);
  expect(error).toMatchObject({ code: "INVALID_ARGUMENT", reason: "INVALID_REQUEST" });
  expect((error as InvalidRequestError).violations.map(({ field }) => field).sort()).toEqual([
    "parameters.guidance_scale",
    "parameters.num_inference_steps",
    "parameters.width",
  ]);
  await expect(client.getModel("nothing")).rejects.toThrow(ModelNotFoundError);
});

test.each(TRANSPORTS)("%s: leaving early cancels the generation", async (_, transport) => {
  const client = new Client(transport);
  const generation = client.generate("a blue square", { numInferenceSteps: 100, ...SMALL });
  for await (const event of generation) if (event.type === "progress") break;
  expect(await client.cancel(generation.generationId ?? "")).toBe("cancelled");
});

test.each(TRANSPORTS)("%s: a deadline that cannot be met is refused", async (_, transport) => {
  const images = new Client(transport)
    .generate("a", { numInferenceSteps: 100, imageCount: 4, timeoutMs: 30 })
    .images();
  await expect(images).rejects.toThrow(DeadlineExceededError);
});

test("a generation is watched and cancelled from elsewhere", async () => {
  const client = new Client(grpc);
  const options = { generationId: `watched-${Date.now()}`, numInferenceSteps: 100, ...SMALL };
  const generation = client.generate("a green heart", options);
  for await (const event of generation) {
    if (event.type !== "accepted") continue;
    const [watched] = await Promise.allSettled([
      client.watch(options.generationId).images(),
      client.cancel(options.generationId),
    ]);
    expect(watched).toMatchObject({
      reason: { constructor: CallCancelledError, reason: "CANCELLED" },
    });
    break;
  }
  await expect(client.textToImage("another", options)).rejects.toThrow(GenerationExistsError);
});

test("models have their parameters and limits", async () => {
  const client = new Client(grpc);
  const [model] = await client.listModels();
  expect(model).toEqual(await client.getModel());
  expect(model).toMatchObject({ name: "shapes", isDefault: true, state: "ready" });
  expect(model?.capabilities?.supportedParameters).toContain("num_inference_steps");
  expect(model?.capabilities?.limits.maxPixelCount).toBeGreaterThan(10_000);
});

test.each(["destroy", "resetAndDestroy"] as const)(
  "a cut connection is taken up again: %s",
  async (how) => {
    const proxy = await TcpProxy.start(servers.service);
    const transport = grpcTransport(proxy.target);
    const kinds: string[] = [];
    try {
      const options = { numInferenceSteps: 30, imageCount: 2, ...SMALL };
      for await (const event of new Client(transport).generate("a yellow star", options)) {
        kinds.push(
          event.type === "progress" ? `progress ${event.imageIndex} ${event.step}` : event.type,
        );
        if (event.type === "progress" && proxy.connectionCount === 1) proxy.cut(how);
      }
    } finally {
      transport.close();
      proxy.stop();
    }
    expect(proxy.connectionCount).toBe(2);
    expect(kinds.filter((kind) => kind === "accepted")).toHaveLength(1);
    expect(kinds.filter((kind) => kind === "image")).toHaveLength(2);
    expect(kinds.at(-1)).toBe("completed");
    expect(new Set(kinds).size).toBe(kinds.length - 1); // only "image" comes twice
  },
);

test("TLS and the token reach the service, and without the token it refuses", async () => {
  const transport = grpcTransport(servers.secured, {
    tls: { rootCertificates: servers.authority },
  });
  try {
    expect(await new Client(transport, { token: servers.token }).listModels()).toHaveLength(1);
    await expect(new Client(transport).listModels()).rejects.toThrow(UnauthenticatedError);
  } finally {
    transport.close();
  }
});

test("a call has a span, whose context the service gets", async () => {
  const spans: Record<string, unknown>[] = [];
  const tracers = recordSpans(spans);
  propagation.setGlobalPropagator(traceparent);
  let sent: string | null = null;
  const transport = grpcTransport(servers.service, {
    interceptors: [
      tracingInterceptor(tracers),
      (next) => (request) => {
        sent = request.header.get("traceparent");
        return next(request);
      },
    ],
  });
  try {
    const client = new Client(transport);
    await client.textToImage("a red circle", { numInferenceSteps: 2, ...SMALL });
    for await (const _ of client.generate("a red circle", SMALL)) break;
    await expect(client.getModel("nothing")).rejects.toThrow(ModelNotFoundError);
  } finally {
    transport.close();
  }
  expect(sent).toMatch(/^00-/);
  const names = ["Generate", "Generate", "CancelGeneration", "GetModel"];
  const ended = names.map((name) =>
    spans.find(
      (span) =>
        span.name === `safelight.v1.TextToImageService/${name}` &&
        !span.isSeen &&
        Object.assign(span, { isSeen: true }),
    ),
  );
  expect(ended.map((span) => [span?.["rpc.response.status_code"], span?.status])).toEqual([
    ["OK", undefined],
    ["CANCELLED", undefined],
    ["OK", undefined],
    ["NOT_FOUND", SpanStatusCode.ERROR],
  ]);
});

/** Return a provider whose spans are in `spans` once they have ended. */
function recordSpans(spans: Record<string, unknown>[]): TracerProvider {
  const startSpan = (name: string, options?: { attributes?: object }): Span => {
    const record: Record<string, unknown> = { name, ...options?.attributes };
    let isRecording = true;
    const span = {
      isRecording: () => isRecording,
      setAttribute: (key: string, value: unknown) => Object.assign(record, { [key]: value }),
      setStatus: ({ code }: { code: SpanStatusCode }) => Object.assign(record, { status: code }),
      end: () => {
        isRecording = false;
        spans.push(record);
      },
    };
    return span as unknown as Span;
  };
  return { getTracer: () => ({ startSpan }) } as unknown as TracerProvider;
}

const traceparent: TextMapPropagator = {
  inject: (context: Context, carrier, setter) => {
    if (context !== ROOT_CONTEXT)
      setter.set(carrier, "traceparent", `00-${"a".repeat(32)}-${"b".repeat(16)}-01`);
  },
  extract: (context) => context,
  fields: () => ["traceparent"],
};
