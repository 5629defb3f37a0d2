/** A service in this process, behind a real transport of Connect, that plays a script to each call. */

import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import {
  Code,
  ConnectError,
  createRouterTransport,
  type HandlerContext,
  type Transport,
} from "@connectrpc/connect";
import { sha256 } from "@noble/hashes/sha2.js";
import { bytesToHex } from "@noble/hashes/utils.js";
import {
  BadRequestSchema,
  ErrorInfoSchema,
  RetryInfoSchema,
} from "../src/gen/google/rpc/error_details_pb.js";
import {
  type GenerateRequest,
  type GenerationEvent,
  GenerationEventSchema,
  GenerationState,
  TextToImageService,
} from "../src/gen/safelight/v1/text_to_image_pb.js";

export type Kind = NonNullable<MessageInitShape<typeof GenerationEventSchema>["kind"]>;

/** A step of a script: an event, the end by an error, or "hold", until the caller leaves. */
export type Step = Kind | ConnectError | "hold";

export const BYTES = Uint8Array.from({ length: 300 }, (_, index) => index % 256);

/** Return an event of the contract. */
export function message(kind: Kind): GenerationEvent {
  return create(GenerationEventSchema, { kind });
}

export function accepted(imageCount = 1): Kind {
  return { case: "accepted", value: { generationId: "a", imageCount } };
}

export function progress(step: number): Kind {
  return { case: "progress", value: { step, stepCount: 4 } };
}

/** Return the announcement and the two chunks of an image. */
export function image(imageIndex = 0, data = BYTES): Kind[] {
  const header = { imageIndex, mimeType: "image/png", sizeBytes: BigInt(data.length) };
  return [
    { case: "image", value: { ...header, sha256: bytesToHex(sha256(data)), seed: 2n ** 63n - 1n } },
    { case: "chunk", value: { imageIndex, offsetBytes: 0n, data: data.subarray(0, 200) } },
    { case: "chunk", value: { imageIndex, offsetBytes: 200n, data: data.subarray(200) } },
  ];
}

export const COMPLETED: Kind = { case: "completed", value: { stepCount: 4 } };

/** Return a whole generation of an image. */
export function whole(): Kind[] {
  return [accepted(), progress(1), ...image(), COMPLETED];
}

/** Return the end of a stream that something between client and service has broken. */
export function broken(code = Code.Internal): ConnectError {
  return new ConnectError("Received RST_STREAM with error code 2", code);
}

/** Return a failure as the service sends it. */
export function failure(
  code: Code,
  reason: string,
  options: { pushbackMs?: string; retryAfterMs?: number; domain?: string; field?: string } = {},
): ConnectError {
  const { pushbackMs, retryAfterMs, domain = "safelight", field } = options;
  const error = new ConnectError(
    "no",
    code,
    pushbackMs === undefined ? undefined : { "grpc-retry-pushback-ms": pushbackMs },
    [{ desc: ErrorInfoSchema, value: { reason, domain } }],
  );
  if (retryAfterMs !== undefined) {
    const retryDelay = durationFromMs(retryAfterMs);
    error.details.push({ desc: RetryInfoSchema, value: { retryDelay } });
  }
  if (field !== undefined) {
    const fieldViolations = [{ field, description: "from 1 to 2" }];
    error.details.push({ desc: BadRequestSchema, value: { fieldViolations } });
  }
  return error;
}

/** Plays its scripts in turn, the last one again and again. */
export class ScriptedService {
  readonly transport: Transport;
  readonly requests: GenerateRequest[] = [];
  readonly headers: Headers[] = [];
  readonly timeoutsMs: (number | undefined)[] = [];
  readonly cancelledIds: string[] = [];
  readonly #scripts: Step[][];

  constructor(...scripts: Step[][]) {
    this.#scripts = scripts;
    this.transport = createRouterTransport(({ service }) => {
      service(TextToImageService, {
        generate: (request, context) => {
          this.requests.push(request);
          return this.#play(context);
        },
        watchGeneration: (_, context) => this.#play(context),
        listModels: (_, context) => this.#answer(context),
        cancelGeneration: ({ generationId }, context) => {
          this.headers.push(context.requestHeader);
          this.cancelledIds.push(generationId);
          return { state: GenerationState.CANCELLED };
        },
      });
    });
  }

  get callCount(): number {
    return this.timeoutsMs.length;
  }

  #next(context: HandlerContext): Step[] {
    this.headers.push(context.requestHeader);
    this.timeoutsMs.push(context.timeoutMs());
    return this.#scripts[Math.min(this.callCount, this.#scripts.length) - 1] ?? [];
  }

  #answer(context: HandlerContext): object {
    for (const step of this.#next(context)) if (step instanceof ConnectError) throw step;
    return {};
  }

  async *#play(context: HandlerContext): AsyncGenerator<{ event: GenerationEvent }> {
    for (const step of this.#next(context)) {
      if (step instanceof ConnectError) throw step;
      if (step === "hold") {
        await new Promise((_, reject) => {
          context.signal.addEventListener("abort", () => reject(context.signal.reason));
        });
      } else {
        yield { event: message(step) };
      }
    }
  }
}
