/** A TCP proxy on loopback whose connections a test can cut. */

import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";

export class TcpProxy {
  readonly #server: Server;
  #sockets: Socket[] = [];
  /** Number of connections so far. */
  connectionCount = 0;

  private constructor(server: Server) {
    this.#server = server;
  }

  /** Start a proxy before HOST:PORT. */
  static async start(target: string): Promise<TcpProxy> {
    const [host, port] = target.split(":");
    const proxy: TcpProxy = new TcpProxy(
      createServer((client) => proxy.#pass(client, connect(Number(port), host))),
    );
    proxy.#server.listen(0, "127.0.0.1");
    await once(proxy.#server, "listening");
    return proxy;
  }

  /** HOST:PORT for clients. */
  get target(): string {
    return `127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** Break all connections: `destroy` closes them, `resetAndDestroy` resets them. */
  cut(how: "destroy" | "resetAndDestroy"): void {
    for (const socket of this.#sockets) socket[how]();
    this.#sockets = [];
  }

  /** Break all connections, and take no new ones. */
  stop(): void {
    this.#server.close();
    this.cut("destroy");
  }

  #pass(client: Socket, upstream: Socket): void {
    this.connectionCount += 1;
    for (const socket of [client, upstream]) socket.on("error", () => {});
    this.#sockets.push(client, upstream);
    client.pipe(upstream).pipe(client);
  }
}
