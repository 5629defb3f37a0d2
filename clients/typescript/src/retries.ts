/** Retries: whether and when to make a failed call again. */

import { ConnectError } from "@connectrpc/connect";
import type { ServiceError, StatusCode } from "./errors.js";

const ATTEMPT_COUNT = 4;
const FIRST_DELAY_MS = 100;
const FIRST_RESUME_DELAY_MS = 50;
const LONGEST_DELAY_MS = 1000;
const FRUITLESS_STREAM_COUNT = 10;
const PUSHBACK = "grpc-retry-pushback-ms";

/** Codes of a broken connection. With others, a proxy refuses the call. */
const BREAK_CODES: ReadonlySet<StatusCode> = new Set<StatusCode>([
  "UNAVAILABLE", // no proxy, or none that had sent anything yet
  "INTERNAL", // Envoy and others, by RST_STREAM
  "CANCELLED", // Node, when the connection is closed
  "ABORTED", // Node, when the connection is reset
  "UNKNOWN", // fetch
  "DEADLINE_EXCEEDED", // a time limit of a proxy
]);

/**
 * The attempts of one call: their time-outs, and the wait before another.
 *
 * All attempts share the call's time-out; none begins after it. Before the first message, four
 * attempts are made while the service is UNAVAILABLE or the connection breaks. They wait as long
 * as the service asks (`grpc-retry-pushback-ms`), or else 0.1 s, doubling. A stream that breaks
 * later is resumed for `lingerMs`, as long as resuming brings new events.
 */
export class Retries {
  readonly #timeoutMs: number | undefined;
  readonly #lingerMs: number;
  #endsAt: number | undefined;
  #attemptCount = 0;
  #hasBegun = false;
  #isStreaming = false;
  #givesUpAt: number | undefined;
  #fruitlessCount = 0;

  /**
   * Plan a call.
   *
   * @param timeoutMs - Milliseconds that all attempts may take together, from the first one on.
   * @param lingerMs - Milliseconds to try to resume a broken stream; 0: not at all.
   */
  constructor(timeoutMs?: number, lingerMs = 0) {
    this.#timeoutMs = timeoutMs;
    this.#lingerMs = lingerMs;
  }

  /** Milliseconds until the time-out passes; undefined for no limit. */
  get leftMs(): number | undefined {
    if (this.#timeoutMs === undefined) return undefined;
    this.#endsAt ??= performance.now() + this.#timeoutMs;
    return Math.max(0, this.#endsAt - performance.now());
  }

  /**
   * Begin the next attempt; return its time-out.
   *
   * It is a whole number, since Connect would send an invalid `grpc-timeout` otherwise, and at
   * least 1, since 0 would mean none.
   */
  beginAttempt(): number | undefined {
    this.#attemptCount += 1;
    this.#isStreaming = false;
    const leftMs = this.leftMs;
    return leftMs === undefined ? undefined : Math.max(1, Math.ceil(leftMs));
  }

  /** Note a message of the stream, and whether the caller has not seen it before. */
  noteMessage({ isNew }: { isNew: boolean }): void {
    this.#hasBegun = this.#isStreaming = true;
    this.#attemptCount = 0;
    this.#givesUpAt = undefined;
    if (isNew) this.#fruitlessCount = 0;
  }

  /**
   * Return the milliseconds to wait before the next attempt.
   *
   * @throws ServiceError: the given error, since another attempt would not help.
   */
  delayAfter(error: ServiceError): number {
    const delayMs = this.#delayAfter(error);
    const leftMs = this.leftMs;
    if (delayMs === undefined || (leftMs !== undefined && delayMs >= leftMs)) throw error;
    return delayMs;
  }

  #delayAfter(error: ServiceError): number | undefined {
    const isBroken = error.reason === undefined && BREAK_CODES.has(error.code);
    const pushbackMs = pushbackOf(error);
    if (pushbackMs !== undefined && pushbackMs < 0) return undefined;
    if (isBroken && this.#hasBegun) return this.#resumeDelay();
    if (this.#isStreaming || this.#attemptCount >= ATTEMPT_COUNT) return undefined;
    if (!isBroken && error.code !== "UNAVAILABLE") return undefined;
    if (pushbackMs !== undefined) return pushbackMs;
    return backoffMs(FIRST_DELAY_MS, this.#attemptCount - 1) * (0.8 + 0.4 * Math.random());
  }

  #resumeDelay(): number | undefined {
    if (this.#lingerMs <= 0) return undefined;
    const now = performance.now();
    this.#givesUpAt ??= now + this.#lingerMs;
    if (this.#isStreaming) this.#fruitlessCount += 1;
    const failureCount = Math.max(this.#attemptCount, this.#fruitlessCount - 1);
    const delayMs = backoffMs(FIRST_RESUME_DELAY_MS, failureCount);
    const isFruitless = this.#fruitlessCount > FRUITLESS_STREAM_COUNT;
    return isFruitless || now + delayMs >= this.#givesUpAt ? undefined : delayMs;
  }
}

function backoffMs(firstMs: number, failureCount: number): number {
  return Math.min(firstMs * 2 ** failureCount, LONGEST_DELAY_MS);
}

/** Return the milliseconds that the service asks to wait, below 0 for no retry. */
function pushbackOf(error: ServiceError): number | undefined {
  if (!(error.cause instanceof ConnectError)) return undefined;
  const value = error.cause.metadata.get(PUSHBACK);
  if (value === null) return undefined;
  return /^\s*\d+\s*$/.test(value) ? Number(value) : -1; // as gRPC reads one that is no number
}
