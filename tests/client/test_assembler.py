"""The stream: only events that add up to the announced images are believed."""

from collections.abc import Iterable

import pytest
from safelight import IntegrityError, ProtocolError
from safelight.assembler import EventAssembler
from safelight.events import Completed, Event, Image, Preview, Progress, Queued, Restarted
from safelight.v1 import text_to_image_pb2 as pb

from tests.client.scripted_service import (
    accepted,
    chunk,
    completed,
    header,
    image,
    model_loading,
    png,
    preview,
    progress,
    queued,
    restarted,
    whole_generation,
)

DATA = png()


def assemble(responses: Iterable[pb.GenerateResponse], image_count: int | None = 1) -> list[Event]:
    """Feed a whole stream."""
    assembler = EventAssembler(image_count)
    events = [event for response in responses if (event := assembler.feed(response.event))]
    assembler.finish()
    return events


def test_chunks_become_one_image_with_the_announced_bytes() -> None:
    image_event, end = assemble([*image(), completed()])
    assert isinstance(image_event, Image)
    assert (image_event.data, image_event.seed) == (DATA, 7)
    assert isinstance(end, Completed)


def test_event_that_the_client_does_not_know_is_skipped() -> None:
    assert len(assemble([pb.GenerateResponse(), *image(), completed()])) == 2


def test_image_is_decoded_with_the_text_of_its_png() -> None:
    image_event, _ = assemble([*image(), completed()])
    assert isinstance(image_event, Image)
    assert image_event.pil.info == {"prompt": "a red circle"}


def test_bytes_of_an_image_stay_out_of_its_repr() -> None:
    image_event, _ = assemble([*image(), completed()])
    assert "data" not in repr(image_event)


def test_several_images_keep_their_order() -> None:
    events = assemble([*image(0), *image(1), completed()], image_count=2)
    assert [event.image_index for event in events if isinstance(event, Image)] == [0, 1]


def test_wrong_sha256_is_an_integrity_error() -> None:
    with pytest.raises(IntegrityError, match="SHA-256 of image 0"):
        assemble([header(DATA, sha256="0" * 64), chunk(DATA)])


def test_more_bytes_than_announced_are_an_integrity_error() -> None:
    with pytest.raises(IntegrityError, match=f"has {len(DATA) + 1} bytes where {len(DATA)}"):
        assemble([header(DATA), chunk(DATA + b"!")])


def test_chunk_at_the_wrong_offset_is_refused() -> None:
    with pytest.raises(ProtocolError, match="starts at byte 5 where byte 0 was due"):
        assemble([header(DATA), chunk(DATA[5:], offset=5)])


def test_chunk_without_an_image_is_refused() -> None:
    with pytest.raises(ProtocolError, match="a chunk of image 0 came out of turn"):
        assemble([chunk(DATA)])


def test_chunk_of_another_image_is_refused() -> None:
    with pytest.raises(ProtocolError, match="a chunk of image 1 came out of turn"):
        assemble([header(DATA), chunk(DATA, index=1)])


def test_image_that_interrupts_another_is_refused() -> None:
    with pytest.raises(ProtocolError, match="image 1 was announced out of turn"):
        assemble([header(DATA), header(DATA, index=1)])


def test_image_that_skips_another_is_refused() -> None:
    with pytest.raises(ProtocolError, match="image 1 was announced out of turn"):
        assemble(image(1))


def test_image_without_bytes_is_refused() -> None:
    with pytest.raises(ProtocolError, match="without bytes"):
        assemble([header(b"")])


def test_end_with_fewer_images_than_asked_for_is_refused() -> None:
    with pytest.raises(ProtocolError, match="ended with 1 images where 2 were asked for"):
        assemble([*image(), completed()], image_count=2)


def test_end_with_fewer_images_than_were_accepted_is_refused() -> None:
    with pytest.raises(ProtocolError, match="ended with 1 images where 2 were asked for"):
        assemble([accepted(2), *image(), completed()], image_count=None)


def test_end_of_what_was_never_accepted_is_refused() -> None:
    with pytest.raises(ProtocolError, match="ended before it was accepted"):
        assemble([*image(), completed()], image_count=None)


def test_end_within_an_image_is_refused() -> None:
    with pytest.raises(ProtocolError, match="ended with 0 images"):
        assemble([header(DATA), chunk(DATA[:5]), completed()])


def test_stream_without_completed_is_refused() -> None:
    with pytest.raises(ProtocolError, match="closed the stream before"):
        assemble([accepted(), progress(1), *image()])


def test_event_after_the_end_is_refused() -> None:
    with pytest.raises(ProtocolError, match="went on after"):
        assemble([*whole_generation(), progress(1)])


def test_events_that_the_service_repeats_after_a_break_are_returned_once() -> None:
    assembler = EventAssembler()
    streams = (
        [accepted(2), progress(1), preview(1), progress(1, image_index=1), progress(2), *image()],
        [accepted(2), progress(2), preview(1), progress(1, image_index=1), *image()],
        [progress(3), preview(3), progress(2, image_index=1), *image(1), completed()],
    )
    events: list[Event] = []
    for number, stream in enumerate(streams):
        if number == 1:
            assembler.restart()
        events += [event for response in stream if (event := assembler.feed(response.event))]
    assembler.finish()
    told = [
        (type(event), event.image_index, event.step)
        for event in events
        if isinstance(event, Progress | Preview)
    ]
    assert told == [
        (Progress, 0, 1),
        (Preview, 0, 1),
        (Progress, 1, 1),
        (Progress, 0, 2),
        (Progress, 0, 3),
        (Preview, 0, 3),
        (Progress, 1, 2),
    ]
    assert [event.image_index for event in events if isinstance(event, Image)] == [0, 1]


def test_steps_only_rise_although_the_generation_runs_again_after_a_break() -> None:
    assembler = EventAssembler()
    for response in (accepted(), progress(1), progress(2), preview(2)):
        assembler.feed(response.event)
    assembler.restart()
    anew = (accepted(), *(step for n in (1, 2, 3) for step in (progress(n), preview(n))))
    events = [event for response in anew if (event := assembler.feed(response.event))]
    assert [(type(event), event.step) for event in events] == [(Progress, 3), (Preview, 3)]  # type: ignore[union-attr]


def test_steps_go_back_after_a_restart_and_only_rise_when_it_is_repeated() -> None:
    assembler = EventAssembler()
    first = (accepted(), progress(1), progress(2), preview(2), restarted(1), progress(1))
    events = [assembler.feed(response.event) for response in first]
    assert events[4] == Restarted(restart_count=1, recovered_step_count=0)
    assert isinstance(events[5], Progress)
    assembler.restart()
    repeated = (accepted(), restarted(1), progress(1), restarted(2), progress(1), preview(2))
    events = [assembler.feed(response.event) for response in repeated]
    assert events[:3] == [None, None, None]
    assert None not in events[3:]


def test_queue_and_loading_are_returned_once_too() -> None:
    assembler = EventAssembler()
    before = (model_loading(), accepted(), queued(2), queued(2))
    assert all(assembler.feed(response.event) for response in before)
    assembler.restart()
    after = (model_loading(), accepted(), queued(2), queued(1), queued(2))
    events = [assembler.feed(response.event) for response in after]
    assert [event.position for event in events if isinstance(event, Queued)] == [1, 2]
    assert events[:3] == [None, None, None]


def test_other_parameters_of_a_repeated_generation_are_returned() -> None:
    assembler = EventAssembler()
    other = accepted()
    other.event.accepted.parameters.seed = 8
    assert assembler.feed(accepted().event)
    assembler.restart()
    assert assembler.feed(other.event) == assembler.accepted
