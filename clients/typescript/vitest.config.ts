import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    globalSetup: "tests/servers.ts",
    include: ["tests/**/*.test.ts"],
    fileParallelism: false, // the machine has two cores, and the service needs one
    testTimeout: 60_000,
    hookTimeout: 120_000,
  },
});
