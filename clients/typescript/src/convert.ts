/** Convert: the contract's messages to this package's types. */

import { create } from "@bufbuild/protobuf";
import type { Duration } from "@bufbuild/protobuf/wkt";
import type {
  Accepted,
  CacheStatus,
  Completed,
  GenerationOutcome,
  Image,
  ModelLoading,
  Preview,
  Progress,
  Queued,
  Restarted,
  Timings,
  Usage,
} from "./events.js";
import * as pb from "./gen/safelight/v1/text_to_image_pb.js";
import type { Adapter, Capabilities, Limits, Model, ModelState, Scheduler } from "./models.js";
import type { Parameters } from "./parameters.js";

const CACHE_STATUSES: Partial<Record<pb.CacheStatus, CacheStatus>> = {
  [pb.CacheStatus.HIT]: "hit",
  [pb.CacheStatus.MISS]: "miss",
  [pb.CacheStatus.BYPASS]: "bypass",
};

const OUTCOMES: Partial<Record<pb.GenerationState, GenerationOutcome>> = {
  [pb.GenerationState.COMPLETED]: "completed",
  [pb.GenerationState.FAILED]: "failed",
  [pb.GenerationState.CANCELLED]: "cancelled",
};

const MODEL_STATES: Partial<Record<pb.ModelState, ModelState>> = {
  [pb.ModelState.NOT_LOADED]: "not loaded",
  [pb.ModelState.LOADING]: "loading",
  [pb.ModelState.READY]: "ready",
  [pb.ModelState.FAILED]: "failed",
};

/** Convert the outcome of a generation. */
export function outcomeFromProto(state: pb.GenerationState): GenerationOutcome {
  return OUTCOMES[state] ?? "unknown";
}

/** Convert the event. */
export function acceptedFromProto(message: pb.GenerationAccepted): Accepted {
  return {
    type: "accepted",
    generationId: message.generationId,
    model: message.model,
    modelRevision: message.modelRevision,
    parameters: parametersFromProto(message.parameters),
    imageCount: message.imageCount,
    adapters: Object.fromEntries(message.adapters.map(({ name, scale }) => [name, scale ?? 0])),
    outputMimeType: message.output?.mimeType ?? "",
    outputQuality: message.output?.quality,
  };
}

/** Convert the event. */
export function queuedFromProto(message: pb.GenerationQueued): Queued {
  return {
    type: "queued",
    position: message.position,
    estimatedWaitMs: message.estimatedWait && milliseconds(message.estimatedWait),
  };
}

/** Convert the event. */
export function modelLoadingFromProto(message: pb.ModelLoading): ModelLoading {
  return {
    type: "modelLoading",
    model: message.model,
    fraction: message.fraction,
    elapsedMs: milliseconds(message.elapsed),
  };
}

/** Convert the event. */
export function restartedFromProto(message: pb.GenerationRestarted): Restarted {
  return {
    type: "restarted",
    restartCount: message.restartCount,
    recoveredStepCount: message.recoveredStepCount,
  };
}

/** Convert the event. */
export function progressFromProto(message: pb.StepProgress): Progress {
  return {
    type: "progress",
    step: message.step,
    stepCount: message.stepCount,
    imageIndex: message.imageIndex,
    elapsedMs: milliseconds(message.elapsed),
    estimatedRemainingMs: milliseconds(message.estimatedRemaining),
  };
}

/** Convert the event. */
export function previewFromProto(message: pb.ImagePreview): Preview {
  return {
    type: "preview",
    imageIndex: message.imageIndex,
    step: message.step,
    mimeType: message.mimeType,
    width: message.width,
    height: message.height,
    data: message.data as Uint8Array<ArrayBuffer>,
  };
}

/** Create an image from its announcement and the bytes of all its chunks. */
export function imageFromProto(header: pb.ImageHeader, data: Uint8Array<ArrayBuffer>): Image {
  return {
    type: "image",
    imageIndex: header.imageIndex,
    mimeType: header.mimeType,
    width: header.width,
    height: header.height,
    seed: header.seed,
    isFlagged: header.isFlagged,
    sha256: header.sha256,
    data,
  };
}

/** Convert the event. */
export function completedFromProto(message: pb.GenerationCompleted): Completed {
  return {
    type: "completed",
    timings: timingsFromProto(message.timings),
    stepCount: message.stepCount,
    batchWidths: message.batchWidths.map(({ imageCount, forwardCount }) => ({
      imageCount,
      forwardCount,
    })),
    cache: CACHE_STATUSES[message.cache] ?? "unknown",
    reusedForwardCount: Number(message.reusedForwardCount),
    restartCount: message.restartCount,
    usage: message.usage && usageFromProto(message.usage),
  };
}

/** Convert a model. */
export function modelFromProto(message: pb.Model): Model {
  return {
    name: message.name,
    revision: message.revision,
    isDefault: message.isDefault,
    state: MODEL_STATES[message.state] ?? "unknown",
    capabilities: message.capabilities && capabilitiesFromProto(message.capabilities),
  };
}

/** Return the milliseconds of a duration; an unset one is 0. */
export function milliseconds(duration: Duration | undefined): number {
  return duration === undefined ? 0 : Number(duration.seconds) * 1e3 + duration.nanos / 1e6;
}

function timingsFromProto(message = create(pb.GenerationTimingsSchema)): Timings {
  return {
    modelLoadMs: milliseconds(message.modelLoad),
    queueMs: milliseconds(message.queue),
    textEncodeMs: milliseconds(message.textEncode),
    denoiseMs: milliseconds(message.denoise),
    decodeMs: milliseconds(message.decode),
    imageEncodeMs: milliseconds(message.imageEncode),
    totalMs: milliseconds(message.total),
  };
}

function usageFromProto(message: pb.GenerationUsage): Usage {
  return {
    deviceTimeMs: milliseconds(message.deviceTime),
    imageCount: message.imageCount,
    pixelCount: Number(message.pixelCount),
    stepCount: message.stepCount,
  };
}

function capabilitiesFromProto(message: pb.ModelCapabilities): Capabilities {
  return {
    pipelineClass: message.pipelineClass,
    supportedParameters: message.supportedParameters,
    defaults: parametersFromProto(message.defaults),
    schedulers: message.schedulers.map(schedulerFromProto),
    limits: limitsFromProto(message.limits),
    hasPreviews: message.hasPreviews,
    deviceType: message.deviceType,
    adapters: message.adapters.map(adapterFromProto),
  };
}

function adapterFromProto(message: pb.Adapter): Adapter {
  return {
    name: message.name,
    description: message.description,
    defaultScale: message.defaultScale,
    minScale: message.minScale,
    maxScale: message.maxScale,
  };
}

function schedulerFromProto(message: pb.Scheduler): Scheduler {
  return { name: message.name, aliases: message.aliases, maxStepCount: message.maxStepCount };
}

function limitsFromProto(message = create(pb.ModelLimitsSchema)): Limits {
  return {
    minSidePx: message.minSidePx,
    maxSidePx: message.maxSidePx,
    sizeMultiplePx: message.sizeMultiplePx,
    maxPixelCount: Number(message.maxPixelCount),
    maxStepCount: message.maxStepCount,
    maxGuidanceScale: message.maxGuidanceScale,
    maxImageCount: message.maxImageCount,
    maxPromptTokenCount: message.maxPromptTokenCount,
    maxPromptCharacterCount: message.maxPromptCharacterCount,
    maxStepReuse: message.maxStepReuse,
  };
}

function parametersFromProto(message = create(pb.TextToImageParametersSchema)): Parameters {
  return {
    guidanceScale: message.guidanceScale,
    negativePrompt: message.negativePrompt,
    numInferenceSteps: message.numInferenceSteps,
    width: message.width,
    height: message.height,
    scheduler: message.scheduler,
    seed: message.seed,
    stepReuse: message.stepReuse,
  };
}
