/** The lines of events, models and errors, in the contract's protobuf JSON. */

import { createHash } from "node:crypto";
import {
  type GenerationEvent,
  type Model,
  type SafelightError,
  ServiceError,
} from "../src/index.js";

/** Return the line of an event. */
export function eventLine({ type, ...event }: GenerationEvent): object {
  const fields: Record<string, unknown> = { ...event };
  if ("cache" in event) fields.cache = enumName("CACHE_STATUS", event.cache);
  if ("outputMimeType" in event) {
    const { outputMimeType, outputQuality, adapters: scales, ...rest } = event;
    const adapters = Object.entries(scales).map(([name, scale]) => ({ name, scale }));
    return {
      accepted: { ...rest, adapters, output: { mimeType: outputMimeType, quality: outputQuality } },
    };
  }
  if (!("sha256" in event)) return { [type]: fields };
  const { data, ...header } = event;
  const received = createHash("sha256").update(data).digest("hex");
  return { image: { ...header, sizeBytes: data.length }, received };
}

/** Return the JSON of a model. */
export function modelLine(model: Model): object {
  return { ...model, state: enumName("MODEL_STATE", model.state) };
}

/** Return the line of a failure. */
export function errorLine(error: SafelightError): object {
  const { message } = error;
  if (!(error instanceof ServiceError)) return { error: { code: "PROTOCOL", message } };
  const { code, reason, violations, retryAfterMs } = error;
  // A key of the kit's own, not a duration of the contract.
  const delay = retryAfterMs === undefined ? {} : { retry_after_ms: Math.round(retryAfterMs) };
  return { error: { code, reason, message, violations, ...delay } };
}

/** Return the contract's name of an enum's value. */
export function enumName(prefix: string, value: string): string {
  const name = value === "unknown" ? "UNSPECIFIED" : value.toUpperCase().replaceAll(" ", "_");
  return `${prefix}_${name}`;
}

/** Return a line as JSON: 64-bit integers as strings, bytes in base64, milliseconds as durations. */
export function toJson(line: object): string {
  return JSON.stringify(line, (_, value) => {
    if (typeof value === "bigint") return `${value}`;
    if (value instanceof Uint8Array) return Buffer.from(value).toString("base64");
    const isObject = typeof value === "object" && value !== null && !Array.isArray(value);
    return isObject ? Object.fromEntries(Object.entries(value).map(duration)) : value;
  });
}

function duration([key, value]: [string, unknown]): [string, unknown] {
  if (!key.endsWith("Ms") || typeof value !== "number") return [key, value];
  return [key.slice(0, -2), `${(value / 1e3).toFixed(9)}s`];
}
