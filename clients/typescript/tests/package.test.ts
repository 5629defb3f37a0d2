/** The package: packed, installed into an empty project, small in browsers; its README works. */

import { execFileSync, spawnSync } from "node:child_process";
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";
import { afterAll, beforeAll, expect, inject, test } from "vitest";
import { VERSION } from "../src/index.js";

const servers = inject("servers");
const folder = mkdtempSync(join(tmpdir(), "safelight-client-"));
const readme = readFileSync("README.md", "utf8");
const { version, exports } = JSON.parse(readFileSync("package.json", "utf8"));

/** Run a program where the package is installed; return its output. */
function run(program: string, ...options: string[]): string {
  const { status, stdout, stderr } = spawnSync(program, options, { cwd: folder, encoding: "utf8" });
  if (status !== 0) throw new Error(`${program} ${options[0]} failed:\n${stdout}${stderr}`);
  return stdout;
}

/** Return the README's examples as programs: one begins with each import of the client. */
function readPrograms(): string[] {
  const blocks = [...readme.matchAll(/```ts\n(.*?)```/gs)].map(([, text = ""]) => text);
  const programs: string[] = [];
  for (const block of blocks) {
    if (block.includes("new Client(")) programs.push(block);
    else programs.push(`${programs.pop()}\n${block}`);
  }
  return programs.map((text) =>
    text
      .replaceAll("localhost:50051", servers.service)
      .replaceAll("http://127.0.0.1:8081", servers.envoy),
  );
}

beforeAll(() => {
  const pack = ["pack", "--json", "--silent", "--pack-destination", folder];
  execFileSync("npm", pack, { stdio: ["ignore", "ignore", "inherit"] });
  writeFileSync(join(folder, "package.json"), '{"type": "module"}');
  run(
    "npm",
    "install",
    "--prefer-offline",
    "--no-audit",
    "--no-fund",
    `./safelight-client-${version}.tgz`,
  );
  for (const name of ["@opentelemetry/api", "@types/node", "typescript"]) {
    const place = join(folder, "node_modules", name);
    mkdirSync(dirname(place), { recursive: true });
    symlinkSync(join(process.cwd(), "node_modules", name), place);
  }
});

afterAll(() => rmSync(folder, { recursive: true }));

test("the versions of both clients are equal", () => {
  const python = readFileSync("../python/safelight/_version.py", "utf8");
  expect(python).toContain(`__version__ = "${version}"`);
  expect(VERSION).toBe(version);
});

test("all that is exported is packed, with types, README and licence", () => {
  const installed = join(folder, "node_modules/@safelight/client");
  expect(readdirSync(installed).sort()).toEqual(["LICENSE", "README.md", "dist", "package.json"]);
  expect(readFileSync(join(installed, "LICENSE"))).toEqual(readFileSync("../../LICENSE"));
  for (const file of Object.values<string>(exports)) {
    expect(readdirSync(join(installed, "dist"))).toContain(file.replace("./dist/", ""));
    expect(readdirSync(join(installed, "dist"))).toContain(
      file.replace("./dist/", "").replace(".js", ".d.ts"),
    );
  }
});

test("the README's examples compile and run where the package is installed", () => {
  const programs = readPrograms();
  expect(programs).toHaveLength(3);
  mkdirSync(join(folder, "examples"));
  const options = {
    target: "es2022",
    module: "nodenext",
    strict: true,
    types: ["node"],
    lib: ["es2023", "dom"],
  };
  writeFileSync(
    join(folder, "tsconfig.json"),
    JSON.stringify({ compilerOptions: options, include: ["examples"] }),
  );
  programs.forEach((text, index) => {
    writeFileSync(join(folder, `examples/${index}.ts`), text);
  });
  run(process.execPath, "node_modules/typescript/bin/tsc");
  const [first, second, third] = programs.map((_, index) =>
    run(process.execPath, `examples/${index}.js`),
  );
  expect(first).toContain("step 1 of");
  expect(first).toContain("parameters.width");
  expect(first).toContain("shapes ready");
  expect(second).toContain("blob:");
  expect(third).toBe("shapes\n");
  expect(readdirSync(folder)).toEqual(
    expect.arrayContaining(["circle.png", "star-0.png", "star-1.png"]),
  );
});

test("a browser's bundle has the size of the README, and nothing of Node", async () => {
  const contents =
    'export { Client } from "@safelight/client";\nexport { grpcWebTransport } from "@safelight/client/web";';
  const { outputFiles } = await build({
    stdin: { contents, resolveDir: folder },
    bundle: true,
    format: "esm",
    minify: true,
    platform: "browser", // an import of Node's modules fails
    write: false,
  });
  const kib = Math.ceil(gzipSync(outputFiles[0]?.contents ?? "").length / 1024);
  const [, stated] = /has (\d+) KiB/.exec(readme.replaceAll("\n", " ")) ?? [];
  expect(kib).toBe(Number(stated));
  const onlyErrors = await build({
    stdin: { contents: 'export { SafelightError } from "@safelight/client";', resolveDir: folder },
    bundle: true,
    format: "esm",
    write: false,
  });
  expect(onlyErrors.outputFiles[0]?.contents.length).toBeLessThan(10_000); // unused code is left out
});
