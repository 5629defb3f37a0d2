/** The models of a service: parameters, limits and readiness. */

import type { Parameters } from "./parameters.js";

/**
 * Readiness of a model.
 *
 * - `not loaded`: not in memory; the first request for it loads it.
 * - `loading`: being loaded.
 * - `ready`: in memory and ready.
 * - `failed`: could not be loaded; the next request for it tries again.
 * - `unknown`: a state of a newer service.
 */
export type ModelState = "not loaded" | "loading" | "ready" | "failed" | "unknown";

/** A scheduler that a model supports. */
export interface Scheduler {
  /** Name of the diffusers class. */
  readonly name: string;
  /** Short names of this class, each with its own settings. */
  readonly aliases: readonly string[];
  /** Highest number of steps; undefined for the model's `maxStepCount`. */
  readonly maxStepCount?: number;
}

/** The limits of requests for a model. */
export interface Limits {
  /** Smallest width and height in pixels. */
  readonly minSidePx: number;
  /** Largest width and height in pixels. */
  readonly maxSidePx: number;
  /** Width and height must be multiples of this many pixels. */
  readonly sizeMultiplePx: number;
  /** Largest product of width and height. */
  readonly maxPixelCount: number;
  /** Highest number of denoising steps. */
  readonly maxStepCount: number;
  /** Highest guidance scale. */
  readonly maxGuidanceScale: number;
  /** Highest number of images in one request. */
  readonly maxImageCount: number;
  /** Highest number of tokens of a prompt; undefined for no limit. */
  readonly maxPromptTokenCount?: number;
  /** Highest number of characters (Unicode code points) of a prompt. */
  readonly maxPromptCharacterCount: number;
  /** Largest share of steps that may reuse earlier outputs; 0 for none. */
  readonly maxStepReuse: number;
}

/** An adapter (LoRA) of a model, for the option `adapters`. */
export interface Adapter {
  /** Name for requests. */
  readonly name: string;
  /** Effect and trigger words, by the operator; may be empty. */
  readonly description: string;
  /** Scale of requests that leave it unset. */
  readonly defaultScale: number;
  /** Lowest scale. */
  readonly minScale: number;
  /** Highest scale. */
  readonly maxScale: number;
}

/** Parameters and limits of a loaded model. */
export interface Capabilities {
  /** Class of its diffusers pipeline. */
  readonly pipelineClass: string;
  /** Names of the supported parameters, as in the contract: `num_inference_steps`. */
  readonly supportedParameters: readonly string[];
  /** Values of unset parameters; `seed` is undefined, since it is random. */
  readonly defaults: Parameters;
  /** Supported schedulers, the model's own first. */
  readonly schedulers: readonly Scheduler[];
  /** Limits of requests. */
  readonly limits: Limits;
  /** Whether it supports previews. */
  readonly hasPreviews: boolean;
  /** Type of its device: `cpu`, `cuda` or `mps`; empty if unknown. */
  readonly deviceType: string;
  /** Its adapters, in the operator's order. */
  readonly adapters: readonly Adapter[];
}

/** A model of the service. */
export interface Model {
  /** Name for requests. */
  readonly name: string;
  /** Revision; empty if unknown. */
  readonly revision: string;
  /** Whether requests without a model use this one. */
  readonly isDefault: boolean;
  /** Readiness. */
  readonly state: ModelState;
  /** Parameters and limits; undefined before the first load. */
  readonly capabilities?: Capabilities;
}
