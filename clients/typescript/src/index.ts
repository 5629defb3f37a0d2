/** The TypeScript client of Safelight: images from text over gRPC, with progress and previews. */

export { EventAssembler } from "./assembler.js";
export { Client } from "./client.js";
export * from "./errors.js";
export type * from "./events.js";
export type { Generation } from "./generation.js";
export type * from "./models.js";
export type { CallOptions, ClientOptions, GenerateOptions, TextToImageOptions } from "./options.js";
export type { Parameters } from "./parameters.js";
export { VERSION } from "./version.js";
