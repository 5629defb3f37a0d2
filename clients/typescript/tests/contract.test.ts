/** Every field of the contract's responses reaches the client's own types. */

import {
  create,
  type DescField,
  type DescMessage,
  type Message,
  type MessageShape,
  ScalarType,
} from "@bufbuild/protobuf";
import { reflect } from "@bufbuild/protobuf/reflect";
import { expect, test } from "vitest";
import * as convert from "../src/convert.js";
import * as pb from "../src/gen/safelight/v1/text_to_image_pb.js";

function scalarOf(field: DescField): unknown {
  if (field.fieldKind === "enum") return field.enum.values.at(-1)?.number;
  if (field.fieldKind === "message") return filled(field.message);
  switch (field.scalar) {
    case ScalarType.STRING:
      return field.localName;
    case ScalarType.BOOL:
      return true;
    case ScalarType.BYTES:
      return Uint8Array.of(7);
    case ScalarType.INT64:
      return 7n;
    default:
      return 7;
  }
}

/** Return a message with every field set, except the one at `gap`, such as `timings.queue`. */
function filled(type: DescMessage, gap = ""): Message {
  const message = create(type);
  const reflected = reflect(type, message);
  for (const field of type.fields) {
    const [first, ...rest] = gap.split(".");
    if (field.localName === first && rest.length === 0) continue;
    if (field.fieldKind === "list") {
      const isMessage = field.listKind === "message";
      const item = isMessage ? reflect(field.message, filled(field.message)) : field.localName;
      reflected.get(field).add(item);
    } else if (field.fieldKind === "message") {
      const inner = filled(field.message, field.localName === first ? rest.join(".") : "");
      reflected.set(field, reflect(field.message, inner));
    } else {
      reflected.set(field, scalarOf(field) as never);
    }
  }
  return message;
}

/** Return the paths of the fields of a message, and of those within. */
function pathsOf(type: DescMessage): string[] {
  if (type.typeName.startsWith("google.")) return [];
  return type.fields.flatMap((field) => [
    field.localName,
    ...(field.fieldKind === "message"
      ? pathsOf(field.message).map((path) => `${field.localName}.${path}`)
      : []),
  ]);
}

/** Fields that have no counterpart of their own. */
const OTHERWISE = [
  "sizeBytes", // the length of an image's data
  "output", // its two fields
  "capabilities.limits", // never unset
  "capabilities.defaults",
];

function cases<T extends DescMessage>(type: T, mirror: (message: MessageShape<T>) => unknown) {
  return pathsOf(type)
    .filter((path) => !OTHERWISE.includes(path))
    .map(
      (path) =>
        [
          type.name,
          path,
          () => [
            mirror(filled(type) as MessageShape<T>),
            mirror(filled(type, path) as MessageShape<T>),
          ],
        ] as const,
    );
}

const CASES = [
  ...cases(pb.GenerationAcceptedSchema, convert.acceptedFromProto),
  ...cases(pb.GenerationQueuedSchema, convert.queuedFromProto),
  ...cases(pb.ModelLoadingSchema, convert.modelLoadingFromProto),
  ...cases(pb.GenerationRestartedSchema, convert.restartedFromProto),
  ...cases(pb.StepProgressSchema, convert.progressFromProto),
  ...cases(pb.ImagePreviewSchema, convert.previewFromProto),
  ...cases(pb.ImageHeaderSchema, (header) => convert.imageFromProto(header, new Uint8Array())),
  ...cases(pb.GenerationCompletedSchema, convert.completedFromProto),
  ...cases(pb.ModelSchema, convert.modelFromProto),
  ...cases(pb.SchedulerSchema, (scheduler) =>
    convert.modelFromProto(create(pb.ModelSchema, { capabilities: { schedulers: [scheduler] } })),
  ),
  ...cases(pb.BatchWidthSchema, (width) =>
    convert.completedFromProto(create(pb.GenerationCompletedSchema, { batchWidths: [width] })),
  ),
];

test.each(CASES)("%s.%s reaches the caller", (_, _path, mirrors) => {
  const [whole, gapped] = mirrors();
  expect(whole).not.toEqual(gapped);
});

test.each([
  [
    pb.ModelState,
    (state: number) => convert.modelFromProto(create(pb.ModelSchema, { state })).state,
  ],
  [
    pb.CacheStatus,
    (cache: number) =>
      convert.completedFromProto(create(pb.GenerationCompletedSchema, { cache })).cache,
  ],
  [pb.GenerationState, (state: number) => convert.outcomeFromProto(state)],
])("every value of an enum has its name", (values, convertOne) => {
  for (const [name, value] of Object.entries(values)) {
    if (typeof value !== "number") continue;
    const expected = value === 0 ? "unknown" : name.toLowerCase().replaceAll("_", " ");
    expect(convertOne(value)).toBe(expected);
  }
  expect(convertOne(99)).toBe("unknown");
});
