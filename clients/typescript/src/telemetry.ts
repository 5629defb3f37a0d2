/** Traces of calls: an interceptor that gives each a client span and sends its context. */

import type { Interceptor, StreamResponse } from "@connectrpc/connect";
import {
  context,
  propagation,
  type Span,
  SpanKind,
  SpanStatusCode,
  type TracerProvider,
  trace,
} from "@opentelemetry/api";
import { serviceErrorFrom } from "./status.js";
import { VERSION } from "./version.js";

/**
 * Make an interceptor for a transport. Each attempt of a call is a span. It is an error unless the
 * status is OK or CANCELLED.
 *
 * @param tracers - Provider of tracers; absent: OpenTelemetry's global one.
 */
export function tracingInterceptor(tracers?: TracerProvider): Interceptor {
  return (next) => async (request) => {
    const tracer = (tracers ?? trace).getTracer("@safelight/client", VERSION);
    const name = `${request.service.typeName}/${request.method.name}`;
    const url = new URL(request.url);
    const span = tracer.startSpan(name, {
      kind: SpanKind.CLIENT,
      attributes: {
        "rpc.system.name": "grpc",
        "rpc.method": name,
        "server.address": url.hostname.replace(/^\[|\]$/g, ""),
        ...(url.port && { "server.port": Number(url.port) }),
      },
    });
    const active = trace.setSpan(context.active(), span);
    propagation.inject(active, request.header, {
      set: (header, key, value) => header.set(key, value),
    });
    try {
      const response = await context.with(active, () => next(request));
      if (response.stream) return { ...response, message: endWith(span, response.message) };
      end(span);
      return response;
    } catch (thrown) {
      end(span, thrown);
      throw thrown;
    }
  };
}

type Messages = StreamResponse["message"];

/** Pass the messages of a stream on, and end the span with it. */
async function* endWith(span: Span, messages: Messages): Messages {
  try {
    yield* messages;
  } catch (thrown) {
    end(span, thrown);
    throw thrown;
  } finally {
    end(span);
  }
}

function end(span: Span, thrown?: unknown): void {
  if (!span.isRecording()) return; // ended before
  const error = thrown === undefined ? undefined : serviceErrorFrom(thrown);
  const code = error?.code ?? "OK";
  span.setAttribute("rpc.response.status_code", code);
  if (error && code !== "CANCELLED") {
    span.setAttribute("error.type", code);
    span.setStatus({ code: SpanStatusCode.ERROR, message: error.message });
  }
  span.end();
}
