/**
 * The errors of a client, and the table from gRPC's statuses to them.
 *
 *     SafelightError
 *     ├── ServiceError                     the call ended with a status other than OK
 *     │   ├── InvalidRequestError          fields break their rules
 *     │   ├── ModelNotFoundError           the service has no such model
 *     │   ├── GenerationExistsError        the generation id is in use for another request
 *     │   ├── GenerationNotFoundError      the generation neither runs nor has recently ended
 *     │   ├── ResourceExhaustedError       a limit is reached
 *     │   │   ├── QueueFullError           too many generations wait
 *     │   │   ├── QuotaExceededError       the caller has used up its generations or streams
 *     │   │   └── OutOfMemoryError         the device has too little memory for the request
 *     │   ├── ServiceUnavailableError      not reachable, or stopping
 *     │   │   └── ModelLoadingError        the model is being loaded
 *     │   ├── ModelFailedError             the model cannot be loaded
 *     │   ├── UnauthenticatedError         the token is missing or unknown
 *     │   ├── PermissionDeniedError        the token does not allow this
 *     │   ├── DeadlineExceededError        the time-out has passed
 *     │   ├── CallCancelledError           the call was cancelled
 *     │   └── InternalServiceError         a fault of the service
 *     │       └── NonFiniteImageError      an image has values that are not finite
 *     └── ProtocolError                    the service broke the contract
 *         └── IntegrityError               an image has other bytes than announced
 */

/** Names of gRPC's status codes. */
export type StatusCode =
  | "CANCELLED"
  | "UNKNOWN"
  | "INVALID_ARGUMENT"
  | "DEADLINE_EXCEEDED"
  | "NOT_FOUND"
  | "ALREADY_EXISTS"
  | "PERMISSION_DENIED"
  | "RESOURCE_EXHAUSTED"
  | "FAILED_PRECONDITION"
  | "ABORTED"
  | "OUT_OF_RANGE"
  | "UNIMPLEMENTED"
  | "INTERNAL"
  | "UNAVAILABLE"
  | "DATA_LOSS"
  | "UNAUTHENTICATED";

/** A field of a request that breaks its rule. */
export interface FieldViolation {
  /** Path in the contract, such as `parameters.width`. */
  readonly field: string;
  /** The allowed values, and the value of the request. */
  readonly description: string;
}

/** The parts of a `ServiceError` besides its message. */
export interface ServiceErrorOptions extends ErrorOptions {
  readonly code?: StatusCode;
  readonly reason?: string;
  readonly violations?: readonly FieldViolation[];
  readonly retryAfterMs?: number;
}

/** Root of all errors of this package. */
export class SafelightError extends Error {
  override name = "SafelightError";
}

/**
 * A call ended with a status other than OK.
 *
 * Thrown itself where no subclass fits, for example for UNIMPLEMENTED. `cause` is the
 * `ConnectError`.
 */
export class ServiceError extends SafelightError {
  override name = "ServiceError";
  /** The gRPC status code. */
  readonly code: StatusCode;
  /**
   * The service's stable name for the cause, such as `QUEUE_FULL`. Undefined if the status is not
   * the service's: a proxy refused, or the connection broke.
   */
  readonly reason: string | undefined;
  /** The fields that break their rules; empty for other causes. */
  readonly violations: readonly FieldViolation[];
  /** Milliseconds to wait before another call; undefined if unknown. */
  readonly retryAfterMs: number | undefined;

  /** Create an error of a status. Only the message is required. */
  constructor(message: string, options: ServiceErrorOptions = {}) {
    super(message, options);
    this.code = options.code ?? "UNKNOWN";
    this.reason = options.reason;
    this.violations = options.violations ?? [];
    this.retryAfterMs = options.retryAfterMs;
  }
}

/** Fields break their rules; `violations` lists all of them. */
export class InvalidRequestError extends ServiceError {
  override name = "InvalidRequestError";
}

/** The service has no model of this name. */
export class ModelNotFoundError extends ServiceError {
  override name = "ModelNotFoundError";
}

/** Another request uses the generation id. */
export class GenerationExistsError extends ServiceError {
  override name = "GenerationExistsError";
}

/** The generation neither runs nor has recently ended. */
export class GenerationNotFoundError extends ServiceError {
  override name = "GenerationNotFoundError";
}

/** A limit is reached, such as the size of a message. */
export class ResourceExhaustedError extends ServiceError {
  override name = "ResourceExhaustedError";
}

/** The queue is full; try again after `retryAfterMs`. */
export class QueueFullError extends ResourceExhaustedError {
  override name = "QueueFullError";
}

/** The caller has reached a limit: generations in a minute or at once, or open calls. */
export class QuotaExceededError extends ResourceExhaustedError {
  override name = "QuotaExceededError";
}

/** The device has too little memory for this request. */
export class OutOfMemoryError extends ResourceExhaustedError {
  override name = "OutOfMemoryError";
}

/** The service cannot be reached, is stopping, or has lost its device. */
export class ServiceUnavailableError extends ServiceError {
  override name = "ServiceUnavailableError";
}

/** The model is being loaded; try again after `retryAfterMs`. */
export class ModelLoadingError extends ServiceUnavailableError {
  override name = "ModelLoadingError";
}

/** The model cannot be loaded. */
export class ModelFailedError extends ServiceError {
  override name = "ModelFailedError";
}

/** The service requires a token, and it is missing or unknown. */
export class UnauthenticatedError extends ServiceError {
  override name = "UnauthenticatedError";
}

/** The token is known but does not allow this call. */
export class PermissionDeniedError extends ServiceError {
  override name = "PermissionDeniedError";
}

/** The time-out has passed or is too short for the request; the service has stopped the work. */
export class DeadlineExceededError extends ServiceError {
  override name = "DeadlineExceededError";
}

/** The call was cancelled by its caller, or the generation by its id. */
export class CallCancelledError extends ServiceError {
  override name = "CallCancelledError";
}

/** A fault of the service; the message holds the id of an entry in its log. */
export class InternalServiceError extends ServiceError {
  override name = "InternalServiceError";
}

/**
 * An image came out as NaN or infinity, by the model's weights, its scheduler or its precision.
 *
 * The same request fails again; another scheduler, more steps or less guidance may not.
 */
export class NonFiniteImageError extends InternalServiceError {
  override name = "NonFiniteImageError";
}

/** The service broke the contract; its stream cannot be trusted. */
export class ProtocolError extends SafelightError {
  override name = "ProtocolError";
}

/** The bytes of an image differ from the announced size or SHA-256. */
export class IntegrityError extends ProtocolError {
  override name = "IntegrityError";
}
