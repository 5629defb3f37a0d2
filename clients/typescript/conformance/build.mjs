/** Builds the runner as one file. */

import { build } from "esbuild";

await build({
  entryPoints: ["runner.ts"],
  bundle: true,
  format: "esm",
  platform: "node",
  outdir: "dist",
});
