/** The options of calls. An option that is absent or undefined takes the model's default. */

/** Milliseconds for which a generation lingers, unless its options say otherwise. */
export const DEFAULT_LINGER_MS = 10_000;

/** The options of every call. */
export interface CallOptions {
  /**
   * Milliseconds after which the call fails and the service stops its work; at most 99,999,999,
   * which is 27 hours. The call ends by then, with all its retries. Absent: the client's
   * `timeoutMs`.
   */
  readonly timeoutMs?: number;
  /** More headers (gRPC's metadata) to send, for example a request id. */
  readonly headers?: Readonly<Record<string, string>>;
  /** Cancels the call when it is aborted. */
  readonly signal?: AbortSignal;
}

/** The options of `textToImage`. */
export interface TextToImageOptions extends CallOptions {
  /** Content that the image should avoid. */
  readonly negativePrompt?: string;
  /** Height in pixels. */
  readonly height?: number;
  /** Width in pixels. */
  readonly width?: number;
  /** Number of denoising steps; the time is proportional to it. */
  readonly numInferenceSteps?: number;
  /** Strength of the prompt; 1 and below turn guidance off. */
  readonly guidanceScale?: number;
  /** Name of the model. */
  readonly model?: string;
  /** Name or alias of the scheduler. */
  readonly scheduler?: string;
  /**
   * Seed of the noise, from 0 to 2^63 - 1; a bigint above 2^53 - 1, where numbers are not exact.
   * The same request with the same seed gives the same image. Absent: random.
   */
  readonly seed?: bigint | number;
  /**
   * Share of the steps that reuse earlier outputs of the denoiser, from 0 to the model's limit:
   * faster, and less exact.
   */
  readonly stepReuse?: number;
  /**
   * Whether to wait for a model that is not loaded yet (the default), or to fail with
   * `ModelLoadingError`.
   */
  readonly waitForModel?: boolean;
  /**
   * Whether the service may answer a repeated request with a seed from its cache, with the same
   * bytes (the default).
   */
  readonly useCache?: boolean;
  /**
   * Name of the generation, unique among those running or recently ended. Absent: the client
   * creates one.
   */
  readonly generationId?: string;
  /**
   * Milliseconds for which the service continues a generation whose connection has broken, and
   * the client tries to resume it; at most 3,600,000. 0: a broken connection cancels it.
   * Absent: 10,000.
   */
  readonly lingerMs?: number;
  /** Scales of adapters (LoRA) of the model, by name; undefined takes the adapter's default. */
  readonly adapters?: Readonly<Record<string, number | undefined>>;
  /** image/png, image/jpeg or image/webp. Absent: image/png. */
  readonly outputMimeType?: string;
  /** Quality of JPEG and WebP, from 1 to 100. Absent: 95. */
  readonly outputQuality?: number;
}

/** The options of `generate`. */
export interface GenerateOptions extends TextToImageOptions {
  /** Number of images; image i has the seed `seed + i`. Absent: 1. */
  readonly imageCount?: number;
  /** Number of steps from one preview to the next. Absent: no previews. */
  readonly previewEvery?: number;
  /** image/jpeg or image/webp. Absent: image/jpeg. */
  readonly previewMimeType?: string;
  /** Longest side of a preview in pixels, from 16 to 512. Absent: 256. */
  readonly previewMaxSidePx?: number;
}

/** The options of a client. */
export interface ClientOptions {
  /**
   * Sent with each call as `authorization: Bearer TOKEN`, over plaintext too: use TLS unless the
   * network itself is safe.
   */
  readonly token?: string;
  /** Milliseconds that a call may take unless it sets its own. */
  readonly timeoutMs?: number;
  /** Headers (gRPC's metadata) of each call. */
  readonly headers?: Readonly<Record<string, string>>;
}
