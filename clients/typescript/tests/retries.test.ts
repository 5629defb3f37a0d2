/** The retries: which failures are followed by another attempt, and when. */

import { expect, test } from "vitest";
import { ServiceError, type StatusCode } from "../src/errors.js";
import { Retries } from "../src/retries.js";

const BREAKS: StatusCode[] = [
  "UNAVAILABLE",
  "INTERNAL",
  "CANCELLED",
  "ABORTED",
  "UNKNOWN",
  "DEADLINE_EXCEEDED",
];
const REFUSALS: StatusCode[] = [
  "INVALID_ARGUMENT",
  "NOT_FOUND",
  "ALREADY_EXISTS",
  "PERMISSION_DENIED",
  "RESOURCE_EXHAUSTED",
  "FAILED_PRECONDITION",
  "OUT_OF_RANGE",
  "UNIMPLEMENTED",
  "DATA_LOSS",
  "UNAUTHENTICATED",
];

function errorOf(code: StatusCode, reason?: string): ServiceError {
  return new ServiceError("no", { code, reason });
}

/** Return the retries of a call whose stream has brought an event. */
function begun(lingerMs = 10_000, timeoutMs?: number): Retries {
  const retries = new Retries(timeoutMs, lingerMs);
  retries.beginAttempt();
  retries.noteMessage({ isNew: true });
  return retries;
}

test.each(BREAKS)("calls are made four times before the first message: %s", (code) => {
  const retries = new Retries();
  for (const expectedMs of [100, 200, 400]) {
    retries.beginAttempt();
    const delayMs = retries.delayAfter(errorOf(code));
    expect(Math.abs(delayMs / expectedMs - 1)).toBeLessThan(0.21);
  }
  retries.beginAttempt();
  expect(() => retries.delayAfter(errorOf(code))).toThrow(ServiceError);
});

test.each(REFUSALS)("refusals are final: %s", (code) => {
  for (const retries of [new Retries(), begun()]) {
    expect(() => retries.delayAfter(errorOf(code))).toThrow(ServiceError);
  }
});

test("failures of the service are final, except that it is unavailable", () => {
  const retries = new Retries();
  retries.beginAttempt();
  expect(() => retries.delayAfter(errorOf("INTERNAL", "INTERNAL"))).toThrow(ServiceError);
  expect(retries.delayAfter(errorOf("UNAVAILABLE", "STOPPING"))).toBeGreaterThan(0);
  expect(() => begun().delayAfter(errorOf("UNAVAILABLE", "STOPPING"))).toThrow(ServiceError);
});

test("a service that is stopping is tried again while resuming", () => {
  const retries = begun();
  retries.delayAfter(errorOf("INTERNAL"));
  retries.beginAttempt();
  expect(retries.delayAfter(errorOf("UNAVAILABLE", "STOPPING"))).toBeGreaterThan(0);
});

test("resuming waits longer each time and gives up after the linger", () => {
  const retries = begun(3000);
  const delaysMs: number[] = [];
  for (let count = 0; count < 5; count += 1) {
    delaysMs.push(retries.delayAfter(errorOf("UNAVAILABLE")));
    retries.beginAttempt();
  }
  expect(delaysMs).toEqual([50, 100, 200, 400, 800]);
  for (const each of [begun(0), begun(40), begun(10_000, 40)]) {
    expect(() => each.delayAfter(errorOf("UNAVAILABLE"))).toThrow(ServiceError);
  }
});

test("streams without new events are resumed ten times", () => {
  const retries = begun();
  for (let count = 0; count < 10; count += 1) {
    retries.delayAfter(errorOf("ABORTED"));
    retries.beginAttempt();
    retries.noteMessage({ isNew: false });
  }
  expect(() => retries.delayAfter(errorOf("ABORTED"))).toThrow(ServiceError);
});

test("time-outs are whole milliseconds, and never 0, which would mean none", () => {
  const timeoutMs = new Retries(1500.25).beginAttempt();
  expect(Number.isInteger(timeoutMs)).toBe(true);
  expect(timeoutMs).toBeGreaterThan(1000);
  expect(new Retries(0).beginAttempt()).toBe(1);
  expect(new Retries().beginAttempt()).toBeUndefined();
});
