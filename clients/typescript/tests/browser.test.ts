/** Chromium: a page generates by gRPC-Web and by Connect, leaves early, and resumes. */

import { existsSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { build } from "esbuild";
import { chromium } from "playwright-core";
import { afterAll, beforeAll, describe, expect, inject, test } from "vitest";
import type {} from "./page.js"; // declares `window.onPage`
import { TcpProxy } from "./tcp-proxy.js";

const CHROMIUM = ["/usr/bin/chromium", "/usr/bin/google-chrome"].find(existsSync);
const servers = inject("servers");

describe.skipIf(CHROMIUM === undefined)("in Chromium", () => {
  const page = createServer((request, response) => {
    const isScript = request.url === "/page.js";
    response.setHeader("content-type", isScript ? "text/javascript" : "text/html");
    response.end(isScript ? script : '<script type="module" src="/page.js"></script>');
  });
  let script = "";
  let browser: Awaited<ReturnType<typeof chromium.launch>>;

  beforeAll(async () => {
    const built = await build({
      entryPoints: ["tests/page.ts"],
      bundle: true,
      format: "esm",
      platform: "browser",
      write: false,
    });
    script = built.outputFiles[0]?.text ?? "";
    await new Promise<void>((resolve) => page.listen(0, "127.0.0.1", resolve));
    // Chromium's own sandbox does not work inside a container.
    browser = await chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox"] });
  });

  afterAll(async () => {
    await browser.close();
    page.close();
  });

  async function openTab() {
    const tab = await browser.newPage();
    await tab.goto(`http://127.0.0.1:${(page.address() as AddressInfo).port}/`);
    await tab.waitForFunction("window.onPage");
    return tab;
  }

  const routes = [
    ["gRPC-Web", servers.envoy],
    ["Connect", servers.envoy],
    ["gRPC-Web", servers.gateway],
    ["Connect", servers.gateway],
  ] as const;

  test.each(routes)("%s at %s: events, errors and leaving early work", async (...route) => {
    const tab = await openTab();
    const result = await tab.evaluate((route) => window.onPage.generateOnPage(...route), route);
    expect(result.kinds[0]).toBe("accepted");
    expect(result.kinds.slice(-2)).toEqual(["image", "completed"]);
    expect(result.kinds).toContain("progress");
    expect(result.size).toEqual([128, 64]);
    expect(result.violations).toEqual(["parameters.width"]);
    expect(result.outcome).toBe("cancelled");
    await tab.close();
  });

  test.each(routes)("%s at %s: a generation survives broken connections", async (...route) => {
    const [protocol, url] = route;
    const proxy = await TcpProxy.start(new URL(url).host);
    const tab = await openTab();
    const cuts = ["destroy", "resetAndDestroy"] as const;
    const left = [...cuts];
    await tab.exposeFunction("cutConnections", () => proxy.cut(left.shift() ?? "destroy"));
    const { kinds, steps } = await tab.evaluate((job) => window.onPage.resumeOnPage(...job), [
      protocol,
      `http://${proxy.target}`,
      cuts.length,
    ] as const);
    expect(kinds.filter((kind) => kind === "accepted")).toHaveLength(1);
    expect(kinds.filter((kind) => kind === "image")).toHaveLength(1);
    expect(kinds.slice(-2)).toEqual(["image", "completed"]);
    expect(steps).toEqual([...new Set(steps)].sort((a, b) => a - b));
    expect(left.length).toBeLessThan(cuts.length);
    await tab.close();
    proxy.stop();
  });
});
