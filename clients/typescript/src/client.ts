/** The client. */

import { create } from "@bufbuild/protobuf";
import type { Transport } from "@connectrpc/connect";
import { checkCallOptions, checkGenerateOptions, checkTextToImageOptions } from "./checks.js";
import { Connection } from "./connection.js";
import { modelFromProto, outcomeFromProto } from "./convert.js";
import { ProtocolError } from "./errors.js";
import type { GenerationOutcome } from "./events.js";
import { ModelSchema } from "./gen/safelight/v1/text_to_image_pb.js";
import { Generation } from "./generation.js";
import type { Model } from "./models.js";
import {
  type CallOptions,
  type ClientOptions,
  DEFAULT_LINGER_MS,
  type GenerateOptions,
  type TextToImageOptions,
} from "./options.js";
import { requestToProto } from "./request.js";

/**
 * Generates images on a service.
 *
 * ```ts
 * import { Client } from "@safelight/client";
 * import { grpcTransport } from "@safelight/client/node";
 *
 * const client = new Client(grpcTransport("localhost:50051"));
 * const blob = await client.textToImage("a red circle on a blue background", { seed: 7 });
 * ```
 */
export class Client {
  readonly #connection: Connection;

  /**
   * Make a client of the service that a transport reaches. It connects on its first call.
   *
   * @param transport - `grpcTransport` of `@safelight/client/node`, `grpcWebTransport` or
   * `connectTransport` of `@safelight/client/web`, or any other of Connect.
   * @throws TypeError: the token cannot be sent, or an option does not exist or has the wrong type.
   * @throws RangeError: the time-out is out of range.
   */
  constructor(transport: Transport, options: ClientOptions = {}) {
    this.#connection = new Connection(transport, options);
  }

  /**
   * Generate an image and return its bytes and MIME type, as the `textToImage` of
   * `@huggingface/inference` does. `generate` shows the progress as well.
   *
   * @throws ServiceError: the generation failed; its subclasses name the cause.
   * @throws ProtocolError: the service broke the contract.
   * @throws TypeError, RangeError: as `generate`.
   */
  async textToImage(prompt: string, options: TextToImageOptions = {}): Promise<Blob> {
    checkTextToImageOptions(prompt, options);
    const [image] = await this.generate(prompt, options).images();
    if (image === undefined) throw new ProtocolError("the generation has no image");
    return new Blob([image.data], { type: image.mimeType });
  }

  /**
   * Prepare a generation, which starts when its events are read.
   *
   * @throws TypeError: an option does not exist or has the wrong type.
   * @throws RangeError: a number does not fit the contract's type.
   */
  generate(prompt: string, options: GenerateOptions = {}): Generation {
    checkGenerateOptions(prompt, options);
    const request = requestToProto(prompt, options);
    const { generationId } = request;
    const lingerMs = options.lingerMs ?? DEFAULT_LINGER_MS;
    const { stub } = this.#connection;
    const headers = this.#connection.generateHeadersOf(options, generationId);
    const cancelHeaders = this.#connection.headersOf(options, generationId);
    return new Generation({
      generationId,
      imageCount: options.imageCount ?? 1,
      retries: this.#connection.retriesOf(options, lingerMs),
      signal: options.signal,
      open: (signal, timeoutMs) => stub.generate(request, { headers, signal, timeoutMs }),
      cancelById:
        lingerMs > 0
          ? (timeoutMs) =>
              stub.cancelGeneration({ generationId }, { headers: cancelHeaders, timeoutMs })
          : undefined,
    });
  }

  /**
   * Prepare to watch a running or recently ended generation, of any client.
   *
   * Leaving the loop early stops watching; `cancel(generationId)` cancels it.
   */
  watch(generationId: string, options: CallOptions = {}): Generation {
    checkCallOptions(options);
    const { stub } = this.#connection;
    const headers = this.#connection.headersOf(options, generationId);
    return new Generation({
      generationId,
      retries: this.#connection.retriesOf(options, DEFAULT_LINGER_MS),
      signal: options.signal,
      open: (signal, timeoutMs) =>
        stub.watchGeneration({ generationId }, { headers, signal, timeoutMs }),
    });
  }

  /**
   * Cancel a generation of any client; return its outcome, new or earlier.
   *
   * @throws GenerationNotFoundError: it neither runs nor has recently ended.
   * @throws ServiceError: the call failed; its other subclasses name the cause.
   */
  async cancel(generationId: string, options: CallOptions = {}): Promise<GenerationOutcome> {
    checkCallOptions(options);
    const { stub } = this.#connection;
    const { state } = await this.#connection.call(
      (connectOptions) => stub.cancelGeneration({ generationId }, connectOptions),
      options,
      generationId,
    );
    return outcomeFromProto(state);
  }

  /**
   * Return the models of the service, the default one first.
   *
   * @throws ServiceError: the call failed; its subclasses name the cause.
   */
  async listModels(options: CallOptions = {}): Promise<Model[]> {
    checkCallOptions(options);
    const { stub } = this.#connection;
    const { models } = await this.#connection.call((each) => stub.listModels({}, each), options);
    return models.map(modelFromProto);
  }

  /**
   * Return the model of this name, or the default one.
   *
   * @throws ModelNotFoundError: the service has no such model.
   * @throws ServiceError: the call failed; its other subclasses name the cause.
   */
  async getModel(name = "", options: CallOptions = {}): Promise<Model> {
    checkCallOptions(options);
    const { stub } = this.#connection;
    const response = await this.#connection.call(
      (each) => stub.getModel({ model: name }, each),
      options,
    );
    return modelFromProto(response.model ?? create(ModelSchema));
  }
}
