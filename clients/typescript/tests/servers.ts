/** The servers of all tests: `support/client_servers.py`, once for each run. */

import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import type { TestProject } from "vitest/node";

/** The addresses that `support/client_servers.py` prints. */
export interface Servers {
  /** HOST:PORT of a plain service. */
  readonly service: string;
  /** HOST:PORT of a service with TLS and tokens. */
  readonly secured: string;
  /** The certificate of its authority, in PEM. */
  readonly authority: string;
  /** A token that it knows. */
  readonly token: string;
  /** URL of Envoy before the plain service. */
  readonly envoy: string;
  /** URL of the gateway before the plain service. */
  readonly gateway: string;
}

declare module "vitest" {
  export interface ProvidedContext {
    servers: Servers;
  }
}

export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const root = new URL("../../../", import.meta.url).pathname;
  const child = spawn("python", ["-m", "support.client_servers"], {
    cwd: root,
    env: {
      ...process.env,
      PYTHONPATH: `${root}:${process.env.PYTHONPATH ?? ""}`,
      OMP_NUM_THREADS: "1", // more would spin while they wait for the tests
    },
    stdio: ["pipe", "pipe", "inherit"],
  });
  const ended = once(child, "exit");
  for await (const line of createInterface({ input: child.stdout })) {
    project.provide("servers", JSON.parse(line));
    return async () => {
      child.stdin.end();
      await ended;
    };
  }
  throw new Error("support.client_servers did not start");
}
