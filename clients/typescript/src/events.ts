/**
 * The events of a generation, in the order of their arrival.
 *
 * Times are in milliseconds. An image is one event: `EventAssembler` joins its chunks and checks
 * its size and SHA-256.
 */

import type { Parameters } from "./parameters.js";

/**
 * How a generation used the service's result cache.
 *
 * - `hit`: the images came from the cache.
 * - `miss`: the images are new, and now in the cache.
 * - `bypass`: the cache was not used: `useCache` is false, or the request has no seed.
 * - `unknown`: a status of a newer service.
 */
export type CacheStatus = "hit" | "miss" | "bypass" | "unknown";

/**
 * The end of a generation.
 *
 * - `completed`: all images are finished.
 * - `failed`: it was refused or went wrong; watching it throws the error.
 * - `cancelled`: it was cancelled, or lost its last watcher.
 * - `unknown`: an outcome of a newer service.
 */
export type GenerationOutcome = "completed" | "failed" | "cancelled" | "unknown";

/** The model of the generation is being loaded. */
export interface ModelLoading {
  readonly type: "modelLoading";
  /** Name of the model. */
  readonly model: string;
  /** Completed share, in [0, 1]; undefined on the first load of the model. */
  readonly fraction?: number;
  /** Milliseconds since loading began. */
  readonly elapsedMs: number;
}

/** The service has accepted the generation, with these parameters. */
export interface Accepted {
  readonly type: "accepted";
  /** Name of the generation, the caller's or the service's. */
  readonly generationId: string;
  /** Name of the model. */
  readonly model: string;
  /** Revision of the model; empty if unknown. */
  readonly modelRevision: string;
  /** Every parameter as used, with defaults; `seed` is that of the first image. */
  readonly parameters: Parameters;
  /** Number of images. */
  readonly imageCount: number;
  /** Scales of the adapters by name, in the requested order. */
  readonly adapters: Readonly<Record<string, number>>;
  /** MIME type of the images. */
  readonly outputMimeType: string;
  /** Quality of the images; undefined for a lossless format. */
  readonly outputQuality?: number;
}

/** The generation waits for others. */
export interface Queued {
  readonly type: "queued";
  /** Place in the queue; 1 is next. */
  readonly position: number;
  /** Milliseconds until it starts; undefined if unknown. */
  readonly estimatedWaitMs?: number;
}

/**
 * The engine that made the images was lost, and another one continues with the same seed.
 *
 * Steps and previews of unfinished images may go back after this event.
 */
export interface Restarted {
  readonly type: "restarted";
  /** Number of restarts of the generation so far; 1 is the first. */
  readonly restartCount: number;
  /** Number of steps, summed over the images, that were recovered instead of made again. */
  readonly recoveredStepCount: number;
}

/** A denoising step is done. */
export interface Progress {
  readonly type: "progress";
  /** Number of done steps of this image, from 1 to `stepCount`. */
  readonly step: number;
  /** Number of steps of this image. */
  readonly stepCount: number;
  /** Index of the image, from 0. */
  readonly imageIndex: number;
  /** Milliseconds since the generation started running. */
  readonly elapsedMs: number;
  /** Milliseconds until all images are finished. */
  readonly estimatedRemainingMs: number;
}

/** A small picture of an unfinished image. */
export interface Preview {
  readonly type: "preview";
  /** Index of the image, from 0. */
  readonly imageIndex: number;
  /** Number of done steps, from 1. */
  readonly step: number;
  /** MIME type of `data`. */
  readonly mimeType: string;
  /** Width in pixels. */
  readonly width: number;
  /** Height in pixels. */
  readonly height: number;
  /** Encoded picture. */
  readonly data: Uint8Array<ArrayBuffer>;
}

/** An image is finished. */
export interface Image {
  readonly type: "image";
  /** Index of the image, from 0. */
  readonly imageIndex: number;
  /** MIME type of `data`. */
  readonly mimeType: string;
  /** Width in pixels. */
  readonly width: number;
  /** Height in pixels. */
  readonly height: number;
  /** Seed that repeats this image in a request for one image. */
  readonly seed: bigint;
  /** Whether the model's safety checker has replaced it with a black image. */
  readonly isFlagged: boolean;
  /** SHA-256 of `data`, 64 lower-case hexadecimal digits. */
  readonly sha256: string;
  /** Encoded image, unchanged from the service. */
  readonly data: Uint8Array<ArrayBuffer>;
}

/** Milliseconds that a generation took by phase, summed over its images. */
export interface Timings {
  readonly modelLoadMs: number;
  readonly queueMs: number;
  readonly textEncodeMs: number;
  readonly denoiseMs: number;
  readonly decodeMs: number;
  readonly imageEncodeMs: number;
  readonly totalMs: number;
}

/**
 * Work of the service that counts for a generation, and for the token that started it.
 *
 * All zero if the images came from the cache, or from an equal generation at the same time.
 */
export interface Usage {
  /** Measured milliseconds of the device, all images together. */
  readonly deviceTimeMs: number;
  /** Number of images made. */
  readonly imageCount: number;
  /** Number of pixels of these images together. */
  readonly pixelCount: number;
  /** Number of denoising steps made, all images together. */
  readonly stepCount: number;
}

/** Forwards of the denoiser with the same number of images. */
export interface BatchWidth {
  /** Images that shared a forward. */
  readonly imageCount: number;
  /** Number of forwards of that width. */
  readonly forwardCount: number;
}

/** The generation has completed; the last event. */
export interface Completed {
  readonly type: "completed";
  /** Milliseconds by phase. */
  readonly timings: Timings;
  /** Number of denoising steps, summed over the images. */
  readonly stepCount: number;
  /** Forwards by batch width, the narrowest first. */
  readonly batchWidths: readonly BatchWidth[];
  /** How the generation used the service's result cache. */
  readonly cache: CacheStatus;
  /** Number of forwards that step reuse saved. */
  readonly reusedForwardCount: number;
  /** Number of engines that were lost while they made the images. */
  readonly restartCount: number;
  /** Work that counts for the generation; undefined from an older service. */
  readonly usage?: Usage;
}

/** Any event of a generation; `type` tells them apart. */
export type GenerationEvent =
  | ModelLoading
  | Accepted
  | Queued
  | Restarted
  | Progress
  | Preview
  | Image
  | Completed;
