/** The connection: transport, credentials and headers of a client, and the calls that it makes. */

import {
  type CallOptions as ConnectOptions,
  createClient,
  type Client as Stub,
  type Transport,
} from "@connectrpc/connect";
import { checkCallOptions } from "./checks.js";
import { CallCancelledError, type ServiceError } from "./errors.js";
import { TextToImageService } from "./gen/safelight/v1/text_to_image_pb.js";
import type { CallOptions, ClientOptions, TextToImageOptions } from "./options.js";
import { Retries } from "./retries.js";
import { serviceErrorFrom } from "./status.js";

/** Ids that the service takes. It refuses others by name, but not all of them fit a header. */
const GENERATION_ID = /^[\w.:-]{1,128}$/;

/** Transport, credentials and headers of a client. */
export class Connection {
  readonly stub: Stub<typeof TextToImageService>;
  readonly #headers: Readonly<Record<string, string>>;
  readonly #timeoutMs: number | undefined;

  /**
   * Make a connection.
   *
   * @throws TypeError: the token cannot be sent, or an option has the wrong type.
   */
  constructor(transport: Transport, { token, headers, ...options }: ClientOptions) {
    checkCallOptions({ headers, ...options });
    // The message of an invalid header would hold the token.
    if (token !== undefined && !/^[!-~]+$/.test(token)) {
      throw new TypeError("token must be visible ASCII characters");
    }
    this.stub = createClient(TextToImageService, transport);
    this.#headers = token ? { ...headers, authorization: `Bearer ${token}` } : { ...headers };
    this.#timeoutMs = options.timeoutMs;
  }

  /** Return the retries of a call. */
  retriesOf(options: CallOptions, lingerMs = 0): Retries {
    return new Retries(options.timeoutMs ?? this.#timeoutMs, lingerMs);
  }

  /** Return the headers of a call about a generation, by which Envoy chooses a replica. */
  headersOf({ headers }: CallOptions, generationId = ""): Record<string, string> {
    return {
      ...this.#headers,
      ...(GENERATION_ID.test(generationId) && { "x-generation-id": generationId }),
      ...headers,
    };
  }

  /** Return the headers of a call that starts a generation. */
  generateHeadersOf(options: TextToImageOptions, generationId: string): Record<string, string> {
    return {
      "x-wait-for-model": `${options.waitForModel ?? true}`,
      "x-use-cache": `${options.useCache ?? true}`,
      ...this.headersOf(options, generationId),
    };
  }

  /** Make a call that has one response, with its retries; return the response. */
  async call<T>(
    method: (options: ConnectOptions) => Promise<T>,
    options: CallOptions,
    generationId?: string,
  ): Promise<T> {
    const retries = this.retriesOf(options);
    const { signal } = options;
    const headers = this.headersOf(options, generationId);
    for (;;) {
      try {
        return await method({ headers, signal, timeoutMs: retries.beginAttempt() });
      } catch (thrown) {
        const error = serviceErrorFrom(thrown);
        await pause(signal?.aborted ? fail(error) : retries.delayAfter(error), signal);
      }
    }
  }
}

/**
 * Wait.
 *
 * @throws CallCancelledError: the signal is aborted.
 */
export function pause(delayMs: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const leave = () => {
      clearTimeout(timer);
      reject(cancelledError(signal?.reason));
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", leave);
      resolve();
    }, delayMs);
    signal?.addEventListener("abort", leave, { once: true });
    if (signal?.aborted) leave();
  });
}

/** Return the error of a call that its caller has cancelled. */
export function cancelledError(cause?: unknown): CallCancelledError {
  return new CallCancelledError("the call was cancelled", { code: "CANCELLED", cause });
}

function fail(error: ServiceError): never {
  throw error;
}
