/** A generation: an async iterable of its events. */

import { create } from "@bufbuild/protobuf";
import { EventAssembler } from "./assembler.js";
import { cancelledError, pause } from "./connection.js";
import type { ServiceError } from "./errors.js";
import type { Accepted, GenerationEvent, Image } from "./events.js";
import type * as pb from "./gen/safelight/v1/text_to_image_pb.js";
import { GenerationEventSchema } from "./gen/safelight/v1/text_to_image_pb.js";
import type { Retries } from "./retries.js";
import { serviceErrorFrom } from "./status.js";

const LONGEST_CANCEL_MS = 5000;
const SHORTEST_CANCEL_MS = 500;

type Response = pb.GenerateResponse | pb.WatchGenerationResponse;

/** A call that a generation will make. */
export interface GenerationPlan {
  /** Name of the generation; empty if the service chooses it. */
  readonly generationId: string;
  /** Number of images in the request; undefined when watching. */
  readonly imageCount?: number;
  /** Time-outs and number of the attempts. */
  readonly retries: Retries;
  /** The caller's signal. */
  readonly signal?: AbortSignal;
  /** Makes an attempt. */
  readonly open: (signal: AbortSignal, timeoutMs?: number) => AsyncIterable<Response>;
  /** Cancels by the id, where the service would continue without the caller. */
  readonly cancelById?: (timeoutMs: number) => Promise<unknown>;
}

/**
 * One generation: an async iterable of its events, which runs once.
 *
 * It starts with the first event that is asked for. Leaving the loop early, by `break`, `return`
 * or an error, cancels the generation. The service stops it within one step. A broken connection
 * does not: the client resumes the generation, and returns each event once.
 *
 * Iterating throws `ServiceError`, whose subclasses name the cause, and `ProtocolError` where the
 * service broke the contract.
 */
export class Generation implements AsyncIterable<GenerationEvent> {
  readonly #plan: GenerationPlan;
  readonly #assembler: EventAssembler;
  readonly #leaving = new AbortController();
  readonly #events: AsyncGenerator<GenerationEvent, void, void>;
  #responses: AsyncIterator<Response> | undefined;
  #hasBegun = false;
  #isCompleted = false;
  #hasFailed = false;
  #left: Promise<void> | undefined;

  /** Prepare the call; `Client.generate` and `Client.watch` make generations. */
  constructor(plan: GenerationPlan) {
    this.#plan = plan;
    this.#assembler = new EventAssembler(plan.imageCount);
    this.#events = this.#run();
  }

  /** The event `Accepted`, with every parameter as used; undefined before it arrives. */
  get accepted(): Accepted | undefined {
    return this.#assembler.accepted;
  }

  /** Name of the generation; undefined while it is not known. */
  get generationId(): string | undefined {
    return this.accepted?.generationId ?? (this.#plan.generationId || undefined);
  }

  /**
   * Wait for the end and return all images of the generation.
   *
   * @throws CallCancelledError: the caller has left the generation.
   */
  async images(): Promise<Image[]> {
    for await (const _ of this);
    if (!this.#isCompleted) throw cancelledError(this.#leaving.signal.reason);
    return [...this.#assembler.images];
  }

  /** Cancel the generation; iterating then throws `CallCancelledError`. */
  cancel(): Promise<void> {
    this.#left ??= this.#leave();
    return this.#left;
  }

  /** Return the events that have not been read. */
  [Symbol.asyncIterator](): AsyncIterator<GenerationEvent, void, void> {
    return this.#events;
  }

  async *#run(): AsyncGenerator<GenerationEvent, void, void> {
    const { signal } = this.#plan;
    const leave = () => void this.cancel();
    signal?.addEventListener("abort", leave);
    if (signal?.aborted) leave();
    try {
      for (let message = await this.#receive(); message; message = await this.#receive()) {
        const event = this.#assembler.feed(message);
        this.#plan.retries.noteMessage({ isNew: event !== undefined });
        this.#isCompleted = event?.type === "completed";
        if (event !== undefined) yield event;
      }
      this.#assembler.finish();
    } finally {
      signal?.removeEventListener("abort", leave);
      await this.cancel();
    }
  }

  /** Return the next message, of this attempt or another; undefined at the end of the stream. */
  async #receive(): Promise<pb.GenerationEvent | undefined> {
    for (;;) {
      if (this.#leaving.signal.aborted) throw cancelledError(this.#leaving.signal.reason);
      this.#responses ??= this.#open();
      try {
        const response = await this.#responses.next();
        return response.done ? undefined : (response.value.event ?? create(GenerationEventSchema));
      } catch (thrown) {
        if (this.#isCompleted) return undefined; // nothing is missing
        this.#responses = undefined;
        await pause(this.#takeFailure(serviceErrorFrom(thrown)), this.#leaving.signal);
      }
    }
  }

  #open(): AsyncIterator<Response> {
    this.#hasBegun = true;
    const timeoutMs = this.#plan.retries.beginAttempt();
    return this.#plan.open(this.#leaving.signal, timeoutMs)[Symbol.asyncIterator]();
  }

  /**
   * Return the milliseconds until the next attempt.
   *
   * @throws ServiceError: the generation has failed, or the caller has left.
   */
  #takeFailure(error: ServiceError): number {
    if (this.#leaving.signal.aborted) throw cancelledError(this.#leaving.signal.reason);
    try {
      const delayMs = this.#plan.retries.delayAfter(error);
      this.#assembler.restart();
      return delayMs;
    } catch (thrown) {
      this.#hasFailed = error.reason !== undefined; // else the service may still run it
      throw thrown;
    }
  }

  async #leave(): Promise<void> {
    this.#leaving.abort(this.#plan.signal?.reason);
    this.#responses?.next().catch(() => {}); // the end of the call, for interceptors
    if (!this.#hasBegun || this.#isCompleted || this.#hasFailed) return;
    const timeoutMs = Math.min(this.#plan.retries.leftMs ?? LONGEST_CANCEL_MS, LONGEST_CANCEL_MS);
    try {
      await this.#plan.cancelById?.(Math.ceil(Math.max(timeoutMs, SHORTEST_CANCEL_MS)));
    } catch {} // it has ended, or cannot be reached
  }
}
