/** The request of a generation. */

import { create } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import {
  type GenerateRequest,
  GenerateRequestSchema,
} from "./gen/safelight/v1/text_to_image_pb.js";
import { DEFAULT_LINGER_MS, type GenerateOptions } from "./options.js";

/** Build the request of a generation from checked options. */
export function requestToProto(prompt: string, options: GenerateOptions): GenerateRequest {
  const lingerMs = Math.ceil(options.lingerMs ?? DEFAULT_LINGER_MS);
  return create(GenerateRequestSchema, {
    inputs: prompt,
    parameters: {
      guidanceScale: options.guidanceScale,
      negativePrompt: options.negativePrompt,
      numInferenceSteps: options.numInferenceSteps,
      width: options.width,
      height: options.height,
      scheduler: options.scheduler,
      seed: options.seed === undefined ? undefined : BigInt(options.seed),
      stepReuse: options.stepReuse,
    },
    model: options.model,
    generationId: options.generationId || (lingerMs > 0 ? randomId() : ""),
    imageCount: options.imageCount,
    output: { mimeType: options.outputMimeType, quality: options.outputQuality },
    preview: {
      intervalSteps: options.previewEvery,
      mimeType: options.previewMimeType,
      maxSidePx: options.previewMaxSidePx,
    },
    adapters: Object.entries(options.adapters ?? {}).map(([name, scale]) => ({ name, scale })),
    linger: lingerMs > 0 ? durationFromMs(lingerMs) : undefined,
  });
}

/** Return 32 random hexadecimal digits. `crypto.randomUUID` is missing on pages without TLS. */
function randomId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
