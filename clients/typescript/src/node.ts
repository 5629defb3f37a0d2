/** The transport for Node: gRPC over HTTP/2. */

import type { Interceptor, Transport } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { VERSION } from "./version.js";

const DEFAULT_PORT = 50051;

/** Certificates for an encrypted connection, each in PEM. */
export interface Tls {
  /** Authorities to trust; absent: those of Node. */
  readonly rootCertificates?: string | Buffer;
  /** The client's key, for a service that asks for one. */
  readonly privateKey?: string | Buffer;
  /** The client's certificate, for `privateKey`. */
  readonly certificateChain?: string | Buffer;
}

/** The options of `grpcTransport`. */
export interface GrpcOptions {
  /** Encryption: false for plaintext (the default), true with the authorities that Node trusts. */
  readonly tls?: boolean | Tls;
  /** Connect's interceptors, such as `tracingInterceptor` of `@safelight/client/telemetry`. */
  readonly interceptors?: readonly Interceptor[];
}

/** A transport by gRPC, with one connection. */
export interface GrpcTransport extends Transport {
  /** Close the connection; calls in progress are cancelled. */
  close(): void;
}

/**
 * Make a transport to a service by gRPC. It connects on its first call, and again after a lost
 * connection. An idle connection does not keep the process alive.
 *
 * @param target - HOST:PORT; the port of a bare host is 50051.
 * @throws TypeError: the target is no address, or only half of a client certificate is given.
 */
export function grpcTransport(target: string, options: GrpcOptions = {}): GrpcTransport {
  const tls = options.tls === true ? {} : options.tls || undefined;
  if (tls && (tls.privateKey === undefined) !== (tls.certificateChain === undefined)) {
    throw new TypeError("privateKey and certificateChain must be given together");
  }
  const baseUrl = `${tls ? "https" : "http"}://${completeTarget(target)}`;
  const sessionManager = new Http2SessionManager(
    baseUrl,
    // Notices a connection that died silently within 40 s of a call.
    { pingIntervalMs: 30_000, pingTimeoutMs: 10_000 },
    tls && { ca: tls.rootCertificates, key: tls.privateKey, cert: tls.certificateChain },
  );
  const interceptors = [nameClient, ...(options.interceptors ?? [])];
  const transport = createGrpcTransport({ baseUrl, sessionManager, interceptors });
  return { ...transport, close: () => sessionManager.abort() };
}

const nameClient: Interceptor = (next) => (request) => {
  const connect = request.header.get("user-agent") ?? "";
  request.header.set("user-agent", `safelight-typescript/${VERSION} ${connect}`);
  return next(request);
};

function completeTarget(target: string): string {
  const match = /^(\[[\da-f:.]+\]|[^\s:/[\]]+)(?::(\d{1,5}))?$/i.exec(target);
  const port = match?.[2] === undefined ? DEFAULT_PORT : Number(match[2]);
  if (match === null || port < 1 || port > 65535) {
    throw new TypeError(`target must be HOST:PORT such as localhost:50051, not ${target}`);
  }
  return `${match[1]}:${port}`;
}
