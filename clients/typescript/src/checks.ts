/** The checks of options that the contract's types cannot hold. The service checks all else. */

import type { CallOptions, GenerateOptions, TextToImageOptions } from "./options.js";

type Check = (name: string, value: unknown) => void;

const LONGEST_LINGER_MS = 3_600_000;
const LONGEST_TIMEOUT_MS = 99_999_999; // gRPC sends eight digits

const isBoolean = ofType("boolean");
const isNumber = ofType("number");
const isObject = ofType("object");
const isInt32 = integer(2n ** 31n - 1n);

const CALL = {
  timeoutMs: milliseconds(LONGEST_TIMEOUT_MS),
  headers: isObject,
  signal: isObject,
} satisfies Record<keyof CallOptions, Check>;

const TEXT_TO_IMAGE = {
  ...CALL,
  negativePrompt: isText,
  height: isInt32,
  width: isInt32,
  numInferenceSteps: isInt32,
  guidanceScale: isNumber,
  model: isText,
  scheduler: isText,
  seed: integer(2n ** 63n - 1n),
  stepReuse: isNumber,
  waitForModel: isBoolean,
  useCache: isBoolean,
  generationId: isText,
  lingerMs: milliseconds(LONGEST_LINGER_MS),
  adapters: areScales,
  outputMimeType: isText,
  outputQuality: isInt32,
} satisfies Record<keyof TextToImageOptions, Check>;

const GENERATE = {
  ...TEXT_TO_IMAGE,
  imageCount: isInt32,
  previewEvery: isInt32,
  previewMimeType: isText,
  previewMaxSidePx: isInt32,
} satisfies Record<keyof GenerateOptions, Check>;

/** Refuse unknown options of a call and wrong types, as `checkGenerateOptions` does. */
export function checkCallOptions(options: CallOptions): void {
  check(options, CALL);
}

/** Refuse unknown options of `textToImage` and wrong types, as `checkGenerateOptions` does. */
export function checkTextToImageOptions(prompt: string, options: TextToImageOptions): void {
  isText("prompt", prompt);
  check(options, TEXT_TO_IMAGE);
}

/**
 * Refuse what the compiler refuses, for callers without it, and numbers that the contract's types
 * cannot hold.
 *
 * @throws TypeError: an option does not exist or has the wrong type.
 * @throws RangeError: a number does not fit the contract's type.
 */
export function checkGenerateOptions(prompt: string, options: GenerateOptions): void {
  isText("prompt", prompt);
  check(options, GENERATE);
}

function check(options: object, checks: Readonly<Record<string, Check>>): void {
  for (const [name, value] of Object.entries(options)) {
    if (!Object.hasOwn(checks, name)) throw new TypeError(`unknown option ${name}`);
    if (value !== undefined) checks[name]?.(name, value);
  }
}

function isText(name: string, value: unknown): void {
  ofType("string")(name, value);
  if (/\p{Surrogate}/u.test(value as string)) throw new TypeError(`${name} must be UTF-8`);
}

function ofType(type: "boolean" | "number" | "object" | "string"): Check {
  return (name, value) => {
    if (typeof value !== type || value === null) throw new TypeError(`${name} must be a ${type}`);
  };
}

function areScales(name: string, value: unknown): void {
  ofType("object")(name, value);
  for (const [adapter, scale] of Object.entries(value as object)) {
    isText(name, adapter);
    if (scale !== undefined) isNumber(`${name}.${adapter}`, scale);
  }
}

function integer(max: bigint): Check {
  return (name, value) => {
    if (typeof value === "number" && Number.isInteger(value) && !Number.isSafeInteger(value)) {
      throw new RangeError(`${name} must be a bigint: the number ${value} is not exact`);
    }
    const isInteger = Number.isInteger(value) || (typeof value === "bigint" && max > 2n ** 53n);
    if (!isInteger) throw new TypeError(`${name} must be an integer, not ${value}`);
    // The service refuses negative ones, by name.
    if (BigInt(value as number) > max || BigInt(value as number) < -max) {
      throw new RangeError(`${name} must be from 0 to ${max}, not ${value}`);
    }
  };
}

function milliseconds(max: number): Check {
  return (name, value) => {
    isNumber(name, value);
    if (!((value as number) >= 0 && (value as number) <= max)) {
      throw new RangeError(`${name} must be from 0 to ${max}, not ${value}`);
    }
  };
}
