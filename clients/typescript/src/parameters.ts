/** The parameters of a generation. */

/**
 * The parameters of a text-to-image task; undefined is unset.
 *
 * The contract's `TextToImageParameters` documents each name.
 */
export interface Parameters {
  readonly guidanceScale?: number;
  readonly negativePrompt?: string;
  readonly numInferenceSteps?: number;
  readonly width?: number;
  readonly height?: number;
  readonly scheduler?: string;
  readonly seed?: bigint;
  readonly stepReuse?: number;
}
