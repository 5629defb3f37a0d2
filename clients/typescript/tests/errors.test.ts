/** The errors: each status of the contract has its class, and details survive every proxy. */

import { readFileSync } from "node:fs";
import { create, toBinary } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { expect, test } from "vitest";
import { ErrorInfoSchema } from "../src/gen/google/rpc/error_details_pb.js";
import * as safelight from "../src/index.js";
import { serviceErrorFrom } from "../src/status.js";

const PROTO = readFileSync("../../protos/safelight/v1/text_to_image.proto", "utf8");
const PYTHON = readFileSync("../python/safelight/errors.py", "utf8");

/** Code, reason and class of each error that the Python client knows. */
const TABLE = [...PYTHON.matchAll(/StatusCode\.(\w+), (?:"(\w+)"|None)\): (\w+),/g)].map(
  ([, code, reason, name]) => [code, reason, name] as [string, string | undefined, string],
);

function codeOf(name: string): Code {
  const word =
    name === "CANCELLED"
      ? "Canceled"
      : name.toLowerCase().replace(/(^|_)./g, (part) => (part.at(-1) ?? "").toUpperCase());
  return Code[word as keyof typeof Code];
}

/** Return an error as it arrives, with the name of its detail's type. */
function received(
  code: Code,
  reason: string,
  type = "google.rpc.ErrorInfo",
  domain = "safelight",
): ConnectError {
  const error = new ConnectError("no", code);
  error.details = [
    { type, value: toBinary(ErrorInfoSchema, create(ErrorInfoSchema, { reason, domain })) },
  ];
  return error;
}

test.each(TABLE)("%s with the reason %s is a %s, as in Python", (code, reason, name) => {
  const error = serviceErrorFrom(
    reason ? received(codeOf(code), reason) : new ConnectError("no", codeOf(code)),
  );
  expect(error.name).toBe(name);
  expect(error).toMatchObject({ code, reason, message: "no" });
  expect(error).toBeInstanceOf(safelight.SafelightError);
});

test("every reason of the contract is in the table", () => {
  const reasons = [...PROTO.matchAll(/[A-Z_]+ \(([A-Z_]+)\)/g)].map(([, reason]) => reason);
  expect(reasons.length).toBeGreaterThan(20);
  expect(TABLE.map(([, reason]) => reason)).toEqual(expect.arrayContaining(reasons));
});

test("every class has its name, so that minified code shows it", () => {
  const classes = Object.entries(safelight).filter(([name]) => name.endsWith("Error"));
  expect(classes).toHaveLength(21);
  for (const [name, ErrorType] of classes) {
    expect(new (ErrorType as typeof safelight.ServiceError)("no").name).toBe(name);
  }
});

test("details are found by either name of their type", () => {
  for (const type of ["google.rpc.ErrorInfo", "type.googleapis.com/google.rpc.ErrorInfo"]) {
    const error = serviceErrorFrom(received(Code.ResourceExhausted, "QUEUE_FULL", type));
    expect(error).toBeInstanceOf(safelight.QueueFullError);
  }
});

test("a reason of another domain is none, and one that is unknown keeps its name", () => {
  const foreign = received(Code.Unavailable, "STOPPING", undefined, "envoy.example");
  expect(serviceErrorFrom(foreign).reason).toBeUndefined();
  const newer = serviceErrorFrom(received(Code.Unavailable, "NEWER"));
  expect(newer).toMatchObject({ name: "ServiceUnavailableError", reason: "NEWER" });
});

test("the service's reason is found beside that of a proxy", () => {
  const error = received(Code.ResourceExhausted, "QUEUE_FULL");
  const foreign = received(Code.ResourceExhausted, "BUSY", undefined, "envoy.example");
  error.details.unshift(...foreign.details);
  expect(serviceErrorFrom(error)).toBeInstanceOf(safelight.QueueFullError);
});

test("details that cannot be read are none", () => {
  const error = received(Code.Unavailable, "STOPPING");
  error.details = [{ type: "google.rpc.ErrorInfo", value: Uint8Array.of(255) }];
  expect(serviceErrorFrom(error)).toMatchObject({ code: "UNAVAILABLE", reason: undefined });
});
