/** The assembler: checked images, each event once, and faults of the stream. */

import { expect, test } from "vitest";
import { EventAssembler, IntegrityError, ProtocolError } from "../src/index.js";
import {
  accepted,
  BYTES,
  COMPLETED,
  image,
  type Kind,
  message,
  progress,
  whole,
} from "./scripted-service.js";

function feed(assembler: EventAssembler, kinds: Kind[]): string[] {
  return kinds
    .map((kind) => assembler.feed(message(kind)))
    .filter((event) => event !== undefined)
    .map((event) => event.type);
}

test("chunks become an image with the exact bytes and seed", () => {
  const assembler = new EventAssembler();
  expect(feed(assembler, whole())).toEqual(["accepted", "progress", "image", "completed"]);
  assembler.finish();
  expect(assembler.images[0]?.data).toEqual(BYTES);
  expect(assembler.images[0]?.seed).toBe(9223372036854775807n);
});

const [header, first, second] = image() as [Kind, Kind, Kind];
const [other] = image(1) as [Kind];
const FAULTS: [string, Kind[], typeof ProtocolError][] = [
  ["a chunk without an image", [accepted(), first], ProtocolError],
  ["a chunk out of turn", [accepted(), header, second], ProtocolError],
  ["the second image first", [accepted(2), other], ProtocolError],
  ["an image within another", [accepted(), header, header], ProtocolError],
  [
    "too many bytes",
    [accepted(), header, first, { case: "chunk", value: { offsetBytes: 200n, data: BYTES } }],
    IntegrityError,
  ],
  [
    "other bytes",
    [
      accepted(),
      header,
      first,
      { case: "chunk", value: { offsetBytes: 200n, data: new Uint8Array(100) } },
    ],
    IntegrityError,
  ],
  ["an image without bytes", [accepted(), { case: "image", value: {} }], ProtocolError],
  ["too few images", [accepted(2), ...image(), COMPLETED], ProtocolError],
  ["an end before the beginning", [COMPLETED], ProtocolError],
  ["an event after the end", [...whole(), progress(2)], ProtocolError],
];

test.each(FAULTS)("refuses %s", (_, kinds, ErrorType) => {
  expect(() => feed(new EventAssembler(), kinds)).toThrow(ErrorType);
});

test("refuses a stream that ends early", () => {
  const assembler = new EventAssembler();
  feed(assembler, [accepted()]);
  expect(() => assembler.finish()).toThrow(ProtocolError);
});

test("after a restart, events that have come before do not come again", () => {
  const assembler = new EventAssembler();
  const queued: Kind = { case: "queued", value: { position: 1 } };
  feed(assembler, [queued, accepted(2), progress(2), ...image(0), other]);
  assembler.restart();
  const again = [
    queued,
    accepted(2),
    progress(2),
    progress(3),
    ...image(0),
    ...image(1),
    COMPLETED,
  ];
  expect(feed(assembler, again)).toEqual(["progress", "image", "completed"]);
  expect(assembler.images).toHaveLength(2);
});

test("after a restart, another image of the same index is refused", () => {
  const assembler = new EventAssembler();
  feed(assembler, [accepted(), ...image()]);
  assembler.restart();
  expect(() => feed(assembler, [accepted(), ...image(0, BYTES.toReversed())])).toThrow(
    IntegrityError,
  );
});

test("after a restart by the service, steps go back once", () => {
  const restarted: Kind = { case: "restarted", value: { restartCount: 1 } };
  const kinds = [accepted(), progress(3), restarted, progress(2), restarted, progress(2)];
  expect(feed(new EventAssembler(), kinds)).toEqual([
    "accepted",
    "progress",
    "restarted",
    "progress",
  ]);
});

test("an event of a newer contract is skipped", () => {
  expect(new EventAssembler().feed(message({ case: undefined }))).toBeUndefined();
});
