/** The assembler: a generation's stream as events, with whole images. */

import { sha256 } from "@noble/hashes/sha2.js";
import { bytesToHex } from "@noble/hashes/utils.js";
import * as convert from "./convert.js";
import { IntegrityError, ProtocolError } from "./errors.js";
import type { Accepted, Completed, GenerationEvent, Image, Queued, Restarted } from "./events.js";
import type * as pb from "./gen/safelight/v1/text_to_image_pb.js";

/**
 * Turns the messages of one generation's stream into events. It does no I/O.
 *
 * `Client` uses it. Use it directly to read the stream of another stub, of `Generate` or
 * `WatchGeneration`. It checks that images come in order, that their chunks leave no gap, that
 * each has the announced size and SHA-256, and that the generation ends with all of its images.
 */
export class EventAssembler {
  #accepted: Accepted | undefined;
  #images: Image[] = [];
  #imageCount: number | undefined;
  readonly #returnedImages = new Map<number, string>();
  readonly #latest = new Map<string, number>();
  #position: number | undefined;
  #isRepeating = false;
  #header: pb.ImageHeader | undefined;
  #chunks: Uint8Array[] = [];
  #byteCount = 0;
  #isCompleted = false;

  /**
   * Make an assembler of one generation.
   *
   * @param imageCount - Number of images in the request; absent: the number in `accepted`.
   */
  constructor(imageCount?: number) {
    this.#imageCount = imageCount;
  }

  /** The event `Accepted`; undefined before it arrives. */
  get accepted(): Accepted | undefined {
    return this.#accepted;
  }

  /** The complete images, in order of `imageIndex`. */
  get images(): readonly Image[] {
    return this.#images;
  }

  /**
   * Take the next message and return the event that it completes.
   *
   * Returns undefined for a part of an image, for an event that an earlier stream has brought, and
   * for an event of a newer contract.
   *
   * @throws ProtocolError: the message cannot follow those before it.
   * @throws IntegrityError: an image's bytes are not the announced ones.
   */
  feed({ kind }: pb.GenerationEvent): GenerationEvent | undefined {
    if (this.#isCompleted) {
      throw new ProtocolError("the service went on after the generation had ended");
    }
    switch (kind.case) {
      case "accepted":
        return this.#accept(convert.acceptedFromProto(kind.value));
      case "queued":
        return this.#queue(convert.queuedFromProto(kind.value));
      case "modelLoading": {
        const loading = convert.modelLoadingFromProto(kind.value);
        return this.#advance(loading, loading.model, loading.elapsedMs);
      }
      case "restarted":
        return this.#goBack(convert.restartedFromProto(kind.value));
      case "progress": {
        const progress = convert.progressFromProto(kind.value);
        return this.#advance(progress, progress.imageIndex, progress.step);
      }
      case "preview": {
        const preview = convert.previewFromProto(kind.value);
        return this.#advance(preview, preview.imageIndex, preview.step);
      }
      case "image":
        this.#beginImage(kind.value);
        return undefined;
      case "chunk":
        return this.#extendImage(kind.value);
      case "completed":
        return this.#complete(kind.value);
      case undefined: // an event of a newer contract
        return undefined;
    }
  }

  /**
   * Expect another stream of the same generation, from its beginning.
   *
   * Call this when a stream has broken and the same request was sent again. The service repeats
   * the present state and all images, or runs the generation again if it has lost it. `feed`
   * returns each event once, and the steps of an image only rise
   * until `Restarted`.
   */
  restart(): void {
    for (const image of this.#images) this.#returnedImages.set(image.imageIndex, image.sha256);
    this.#images = [];
    this.#header = undefined;
    this.#isRepeating = true;
  }

  /**
   * Note that the stream has ended with the status OK.
   *
   * @throws ProtocolError: the generation had not ended.
   */
  finish(): void {
    if (!this.#isCompleted) {
      throw new ProtocolError("the service closed the stream before the generation had ended");
    }
  }

  #accept(accepted: Accepted): Accepted | undefined {
    // Another seed, if the service ran it again.
    const isNew = this.#accepted === undefined || textOf(accepted) !== textOf(this.#accepted);
    this.#accepted = accepted;
    this.#imageCount ??= accepted.imageCount;
    return isNew ? accepted : undefined;
  }

  /** Return the event, unless it repeats the position from an earlier stream. */
  #queue(queued: Queued): Queued | undefined {
    const isRepeated = this.#isRepeating && queued.position === this.#position;
    this.#position = queued.position;
    this.#isRepeating = false;
    return isRepeated ? undefined : queued;
  }

  /** Return the event if its value exceeds those of all earlier events of the subject. */
  #advance<T extends GenerationEvent>(event: T, subject: unknown, value: number): T | undefined {
    const key = `${event.type} ${subject}`;
    if (value <= (this.#latest.get(key) ?? Number.NEGATIVE_INFINITY)) return undefined;
    this.#latest.set(key, value);
    return event;
  }

  /** Expect steps and previews anew, unless the event repeats an earlier one. */
  #goBack(restarted: Restarted): Restarted | undefined {
    if (this.#advance(restarted, "", restarted.restartCount) === undefined) return undefined;
    for (const key of [...this.#latest.keys()]) {
      if (/^(progress|preview) /.test(key)) this.#latest.delete(key);
    }
    return restarted;
  }

  #beginImage(header: pb.ImageHeader): void {
    if (this.#header !== undefined || header.imageIndex !== this.#images.length) {
      throw new ProtocolError(`image ${header.imageIndex} was announced out of turn`);
    }
    if (header.sizeBytes < 1n) {
      throw new ProtocolError(`image ${header.imageIndex} was announced without bytes`);
    }
    this.#header = header;
    this.#chunks = [];
    this.#byteCount = 0;
  }

  #extendImage(chunk: pb.ImageChunk): Image | undefined {
    const header = this.#header;
    if (header === undefined || chunk.imageIndex !== header.imageIndex) {
      throw new ProtocolError(`a chunk of image ${chunk.imageIndex} came out of turn`);
    }
    if (chunk.offsetBytes !== BigInt(this.#byteCount)) {
      throw new ProtocolError(
        `a chunk of image ${header.imageIndex} starts at byte ${chunk.offsetBytes} ` +
          `where byte ${this.#byteCount} was due`,
      );
    }
    this.#chunks.push(chunk.data);
    this.#byteCount += chunk.data.length;
    if (BigInt(this.#byteCount) < header.sizeBytes) return undefined;
    this.#header = undefined;
    return this.#completeImage(header);
  }

  #completeImage(header: pb.ImageHeader): Image | undefined {
    if (BigInt(this.#byteCount) !== header.sizeBytes) {
      throw new IntegrityError(
        `image ${header.imageIndex} has ${this.#byteCount} bytes where ${header.sizeBytes} ` +
          "were announced",
      );
    }
    const data = join(this.#chunks, this.#byteCount);
    this.#chunks = [];
    if (bytesToHex(sha256(data)) !== header.sha256) {
      throw new IntegrityError(
        `the SHA-256 of image ${header.imageIndex} is not the announced one`,
      );
    }
    const image = convert.imageFromProto(header, data);
    this.#images.push(image);
    const returned = this.#returnedImages.get(image.imageIndex);
    if (returned === undefined) return image;
    if (returned !== image.sha256) {
      throw new IntegrityError(
        `image ${image.imageIndex} is not the one that came before the connection broke`,
      );
    }
    return undefined;
  }

  #complete(message: pb.GenerationCompleted): Completed {
    if (this.#imageCount === undefined) {
      throw new ProtocolError("the generation ended before it was accepted");
    }
    if (this.#images.length !== this.#imageCount) {
      throw new ProtocolError(
        `the generation ended with ${this.#images.length} images ` +
          `where ${this.#imageCount} were asked for`,
      );
    }
    this.#isCompleted = true;
    return convert.completedFromProto(message);
  }
}

function join(chunks: readonly Uint8Array[], byteCount: number): Uint8Array<ArrayBuffer> {
  const data = new Uint8Array(byteCount);
  let offset = 0;
  for (const chunk of chunks) {
    data.set(chunk, offset);
    offset += chunk.length;
  }
  return data;
}

function textOf(accepted: Accepted): string {
  return JSON.stringify(accepted, (_, value) => (typeof value === "bigint" ? `${value}` : value));
}
