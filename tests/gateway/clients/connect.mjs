// Runs connect-es against a gateway or Envoy, as browsers do.
//
// Reads a JSON object from standard input and writes one line of JSON for each of its `calls`: the
// events by name, the size of the image, and the error with its details, as connect-es finds them.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const job = JSON.parse(readFileSync(0, "utf8"));
const require = createRequire(`${job.modules}/`);
const load = (name) => import(pathToFileURL(require.resolve(name)));

const { createFileRegistry, fromBinary } = await load("@bufbuild/protobuf");
const { FileDescriptorSetSchema } = await load("@bufbuild/protobuf/wkt");
const { Code, ConnectError, createClient } = await load("@connectrpc/connect");
const web = await load("@connectrpc/connect-web");

const descriptors = Buffer.from(job.descriptors, "base64");
const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, descriptors));
const service = registry.getService("safelight.v1.TextToImageService");
const [errorInfo, badRequest] = ["ErrorInfo", "BadRequest"].map((name) =>
  registry.getMessage(`google.rpc.${name}`),
);

const transports = {
  "connect+proto": (baseUrl) => web.createConnectTransport({ baseUrl, useBinaryFormat: true }),
  "connect+json": (baseUrl) => web.createConnectTransport({ baseUrl }),
  "grpc-web": (baseUrl) => web.createGrpcWebTransport({ baseUrl }),
};

async function run({ url, protocol, request, timeoutMs, leavesAt }) {
  const client = createClient(service, transports[protocol](url));
  const leaving = new AbortController();
  const outcome = { events: [], sizeBytes: 0 };
  const options = {
    signal: leaving.signal,
    timeoutMs,
    onTrailer: (trailers) => (outcome.cache = trailers.get("x-cache")),
  };
  try {
    const { models } = await client.listModels({}, options);
    outcome.models = models.map((model) => model.name);
    for await (const { event } of client.generate(request, options)) {
      const { case: name, value } = event.kind;
      outcome.events.push(name);
      if (name === "chunk") outcome.sizeBytes += value.data.length;
      if (name === leavesAt) leaving.abort();
    }
  } catch (caught) {
    const error = ConnectError.from(caught);
    outcome.code = Code[error.code];
    outcome.reasons = error.findDetails(errorInfo).map((info) => info.reason);
    outcome.fields = error
      .findDetails(badRequest)
      .flatMap((bad) => bad.fieldViolations.map((violation) => violation.field));
  }
  return outcome;
}

for (const call of job.calls) console.log(JSON.stringify(await run(call)));
