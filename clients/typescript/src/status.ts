/** The status of a failed call, as an error of this package. */

import { type DescMessage, fromBinary, type MessageShape } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { milliseconds } from "./convert.js";
import * as errors from "./errors.js";
import {
  BadRequestSchema,
  ErrorInfoSchema,
  RetryInfoSchema,
} from "./gen/google/rpc/error_details_pb.js";

const DOMAIN = "safelight";

const CODES: Record<Code, errors.StatusCode> = {
  [Code.Canceled]: "CANCELLED",
  [Code.Unknown]: "UNKNOWN",
  [Code.InvalidArgument]: "INVALID_ARGUMENT",
  [Code.DeadlineExceeded]: "DEADLINE_EXCEEDED",
  [Code.NotFound]: "NOT_FOUND",
  [Code.AlreadyExists]: "ALREADY_EXISTS",
  [Code.PermissionDenied]: "PERMISSION_DENIED",
  [Code.ResourceExhausted]: "RESOURCE_EXHAUSTED",
  [Code.FailedPrecondition]: "FAILED_PRECONDITION",
  [Code.Aborted]: "ABORTED",
  [Code.OutOfRange]: "OUT_OF_RANGE",
  [Code.Unimplemented]: "UNIMPLEMENTED",
  [Code.Internal]: "INTERNAL",
  [Code.Unavailable]: "UNAVAILABLE",
  [Code.DataLoss]: "DATA_LOSS",
  [Code.Unauthenticated]: "UNAUTHENTICATED",
};

/** The error of each code and reason. */
const BY_REASON: Record<string, typeof errors.ServiceError> = {
  "INVALID_ARGUMENT INVALID_REQUEST": errors.InvalidRequestError,
  "NOT_FOUND MODEL_NOT_FOUND": errors.ModelNotFoundError,
  "NOT_FOUND GENERATION_NOT_FOUND": errors.GenerationNotFoundError,
  "ALREADY_EXISTS GENERATION_EXISTS": errors.GenerationExistsError,
  "RESOURCE_EXHAUSTED QUEUE_FULL": errors.QueueFullError,
  "RESOURCE_EXHAUSTED RATE_LIMITED": errors.QuotaExceededError,
  "RESOURCE_EXHAUSTED TOO_MANY_CALLS": errors.QuotaExceededError,
  "RESOURCE_EXHAUSTED TOO_MANY_GENERATIONS": errors.QuotaExceededError,
  "RESOURCE_EXHAUSTED TOO_MANY_WATCHES": errors.QuotaExceededError,
  "RESOURCE_EXHAUSTED OUT_OF_MEMORY": errors.OutOfMemoryError,
  "UNAVAILABLE MODEL_LOADING": errors.ModelLoadingError,
  "FAILED_PRECONDITION MODEL_FAILED": errors.ModelFailedError,
  "INTERNAL NON_FINITE_IMAGE": errors.NonFiniteImageError,
};

/** The error of each code with any other reason, or with none. */
const BY_CODE: Partial<Record<errors.StatusCode, typeof errors.ServiceError>> = {
  CANCELLED: errors.CallCancelledError,
  UNKNOWN: errors.InternalServiceError,
  INVALID_ARGUMENT: errors.InvalidRequestError,
  DEADLINE_EXCEEDED: errors.DeadlineExceededError,
  PERMISSION_DENIED: errors.PermissionDeniedError,
  RESOURCE_EXHAUSTED: errors.ResourceExhaustedError,
  INTERNAL: errors.InternalServiceError,
  UNAVAILABLE: errors.ServiceUnavailableError,
  UNAUTHENTICATED: errors.UnauthenticatedError,
};

/** Return the error of a failed call; `thrown` becomes its cause. */
export function serviceErrorFrom(thrown: unknown): errors.ServiceError {
  const failure = ConnectError.from(thrown);
  const code = CODES[failure.code];
  const reason = detailsOf(failure, ErrorInfoSchema).find((info) => info.domain === DOMAIN)?.reason;
  const delay = detailsOf(failure, RetryInfoSchema)[0]?.retryDelay;
  const ErrorType = BY_REASON[`${code} ${reason}`] ?? BY_CODE[code] ?? errors.ServiceError;
  return new ErrorType(failure.rawMessage || code, {
    code,
    reason,
    violations: (detailsOf(failure, BadRequestSchema)[0]?.fieldViolations ?? []).map(
      ({ field, description }) => ({ field, description }),
    ),
    retryAfterMs: delay && milliseconds(delay),
    cause: failure,
  });
}

/**
 * Return the details of this type.
 *
 * `ConnectError.findDetails` misses names with a prefix, which Envoy's Connect filter sends.
 */
function detailsOf<T extends DescMessage>(failure: ConnectError, type: T): MessageShape<T>[] {
  return failure.details.flatMap((detail) => {
    if (!("type" in detail) || detail.type.split("/").pop() !== type.typeName) return [];
    try {
      return [fromBinary(type, detail.value)];
    } catch {
      return []; // a proxy may send details that cannot be read
    }
  });
}
