/** The transports for browsers: gRPC-Web and Connect, over fetch. */

import type { Interceptor, Transport } from "@connectrpc/connect";
import { createConnectTransport, createGrpcWebTransport } from "@connectrpc/connect-web";

/** The options of both transports. */
export interface WebOptions {
  /** Connect's interceptors, such as `tracingInterceptor` of `@safelight/client/telemetry`. */
  readonly interceptors?: readonly Interceptor[];
}

/** Make a transport by gRPC-Web, for Envoy. `baseUrl` is such as `https://images.example`. */
export function grpcWebTransport(baseUrl: string, options: WebOptions = {}): Transport {
  return createGrpcWebTransport({ baseUrl, interceptors: [...(options.interceptors ?? [])] });
}

/** Make a transport by Connect with protobuf. `baseUrl` is such as `https://images.example`. */
export function connectTransport(baseUrl: string, options: WebOptions = {}): Transport {
  return createConnectTransport({
    baseUrl,
    useBinaryFormat: true,
    interceptors: [...(options.interceptors ?? [])],
  });
}
