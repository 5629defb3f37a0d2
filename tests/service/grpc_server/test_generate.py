"""Generate, as a plain grpcio client with default options sees it."""

import hashlib
import io
import threading
from collections.abc import Iterator

import grpc
import numpy as np
import PIL.Image
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from safelight.v1 import text_to_image_pb2 as pb
from safelight.v1 import text_to_image_pb2_grpc as pb_grpc

from support.generation_stream import image_bytes, kinds, wait_for
from support.running_service import RunningService

PROMPT = "a red circle on a blue background"
LONG_STEP_COUNT = 150


@pytest.fixture
def stub(service: RunningService) -> Iterator[pb_grpc.TextToImageServiceStub]:
    with grpc.insecure_channel(service.target) as channel:
        yield pb_grpc.TextToImageServiceStub(channel)


def request(steps: int = 4, seed: int = 1, **fields: object) -> pb.GenerateRequest:
    parameters = pb.TextToImageParameters(num_inference_steps=steps, seed=seed)
    return pb.GenerateRequest(inputs=PROMPT, parameters=parameters, **fields)  # type: ignore[arg-type]


def long_request() -> pb.GenerateRequest:
    """A generation that takes far longer than any test."""
    parameters = pb.TextToImageParameters(
        num_inference_steps=LONG_STEP_COUNT, width=512, height=512, seed=1
    )
    return pb.GenerateRequest(inputs=PROMPT, parameters=parameters)


def violations(error: grpc.RpcError) -> dict[str, str]:
    assert isinstance(error, grpc.Call)
    status = rpc_status.from_call(error)
    assert status is not None
    bad_request = error_details_pb2.BadRequest()
    assert any(detail.Unpack(bad_request) for detail in status.details)
    return {v.field: v.description for v in bad_request.field_violations}


def test_events_come_in_the_promised_order(stub: pb_grpc.TextToImageServiceStub) -> None:
    events = kinds(stub.Generate(request()))
    assert events[0] == "accepted"
    assert events[-3:] == ["image", "chunk", "completed"]
    assert set(events[1:-3]) <= {"queued", "progress"}


def test_accepted_holds_every_resolved_parameter(stub: pb_grpc.TextToImageServiceStub) -> None:
    accepted = next(iter(stub.Generate(pb.GenerateRequest(inputs=PROMPT)))).event.accepted
    assert accepted.model == "shapes"
    assert accepted.parameters.num_inference_steps == 20
    assert (accepted.parameters.width, accepted.parameters.height) == (128, 128)
    assert accepted.parameters.HasField("seed")
    assert accepted.parameters.scheduler
    assert accepted.output.mime_type == "image/png"


def test_the_image_is_what_its_header_announces(stub: pb_grpc.TextToImageServiceStub) -> None:
    responses = list(stub.Generate(request()))
    header = wait_for(responses, "image").image
    data = image_bytes(responses)
    assert header.size_bytes == len(data)
    assert header.sha256 == hashlib.sha256(data).hexdigest()
    picture = PIL.Image.open(io.BytesIO(data))
    assert (picture.width, picture.height) == (header.width, header.height) == (128, 128)


def test_the_same_seed_gives_the_same_bytes(stub: pb_grpc.TextToImageServiceStub) -> None:
    first, again, other = (image_bytes(stub.Generate(request(seed=seed))) for seed in (0, 0, 1))
    assert first == again != other


def test_each_image_of_a_request_has_a_seed_of_its_own(
    stub: pb_grpc.TextToImageServiceStub,
) -> None:
    pair = list(stub.Generate(request(seed=5, image_count=2)))
    seeds = [response.event.image.seed for response in pair if response.event.HasField("image")]
    alone = list(stub.Generate(request(seed=6)))
    assert seeds == [5, 6]
    # Equal up to rounding: the images of one request share forwards.
    second, single = (
        PIL.Image.open(io.BytesIO(data))
        for data in (image_bytes(pair, index=1), image_bytes(alone))
    )
    assert np.abs(np.asarray(second).astype(int) - np.asarray(single)).max() <= 1
    assert second.info == single.info


def test_a_png_carries_its_parameters_as_text(stub: pb_grpc.TextToImageServiceStub) -> None:
    data = image_bytes(stub.Generate(request(steps=3, seed=9)))
    picture = PIL.Image.open(io.BytesIO(data))
    assert isinstance(picture.info["parameters"], str)
    assert picture.info["parameters"].startswith(f"{PROMPT}\nSteps: 3, ")
    assert "Seed: 9, Size: 128x128, Model: shapes" in picture.info["parameters"]


def test_a_prompt_of_odd_characters_comes_back_in_the_png_as_it_was_sent(
    stub: pb_grpc.TextToImageServiceStub,
) -> None:
    """Fault 46: line ends, an escape sequence, NUL, a change of direction, an emoji."""
    prompt = "a red\r\ncircle\x1b[31m\x00 \u202eand\u202c \N{ARTIST PALETTE}"
    parameters = pb.TextToImageParameters(num_inference_steps=1)
    data = image_bytes(stub.Generate(pb.GenerateRequest(inputs=prompt, parameters=parameters)))
    picture = PIL.Image.open(io.BytesIO(data))
    assert picture.info["parameters"].startswith(f"{prompt}\nSteps: 1, ")


@pytest.mark.parametrize(("mime_type", "format_"), [("image/jpeg", "JPEG"), ("image/webp", "WEBP")])
def test_other_formats_are_sent_as_asked_for(
    mime_type: str, format_: str, stub: pb_grpc.TextToImageServiceStub
) -> None:
    output = pb.OutputOptions(mime_type=mime_type, quality=80)
    data = image_bytes(stub.Generate(request(steps=2, output=output)))
    assert PIL.Image.open(io.BytesIO(data)).format == format_


def test_previews_come_at_the_interval_asked_for(stub: pb_grpc.TextToImageServiceStub) -> None:
    preview = pb.PreviewOptions(interval_steps=2, max_side_px=64)
    events = [response.event for response in stub.Generate(request(steps=6, preview=preview))]
    previews = [event.preview for event in events if event.HasField("preview")]
    # A slow reader gets only the latest ones, so some may be missing.
    assert {preview.step for preview in previews} <= {2, 4}
    assert previews
    for preview_event in previews:
        picture = PIL.Image.open(io.BytesIO(preview_event.data))
        assert (picture.format, picture.size) == ("JPEG", (64, 64))


def test_all_bad_fields_are_named_at_once(stub: pb_grpc.TextToImageServiceStub) -> None:
    """Fault 4: INVALID_ARGUMENT with a BadRequest."""
    bad = pb.GenerateRequest(
        inputs=" ",
        parameters=pb.TextToImageParameters(width=100, scheduler="nope", seed=-1),
        image_count=0,
    )
    with pytest.raises(grpc.RpcError) as raised:
        list(stub.Generate(bad))
    found = violations(raised.value)
    assert list(found) == [
        "inputs",
        "image_count",
        "parameters.width",
        "parameters.scheduler",
        "parameters.seed",
    ]
    assert found["parameters.width"] == "must be a multiple of 8 between 64 and 512, not 100"
    assert "EulerDiscreteScheduler" in found["parameters.scheduler"]


def test_an_unknown_model_is_not_found(stub: pb_grpc.TextToImageServiceStub) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        list(stub.Generate(request(model="nope")))
    assert isinstance(raised.value, grpc.Call)
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND
    assert "choose one of: shapes" in (raised.value.details() or "")


def test_a_flag_that_is_none_is_an_invalid_argument(stub: pb_grpc.TextToImageServiceStub) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        list(stub.Generate(request(), metadata=(("x-wait-for-model", "perhaps"),)))
    assert "x-wait-for-model" in violations(raised.value)


def test_a_generation_behind_another_gets_its_position(
    stub: pb_grpc.TextToImageServiceStub,
) -> None:
    running = stub.Generate(long_request())
    wait_for(running, "progress")
    waiting = stub.Generate(request(steps=1))
    assert wait_for(waiting, "queued").queued.position == 1
    running.cancel()
    assert kinds(waiting)[-1] == "completed"


def test_a_generation_that_is_cancelled_while_it_waits_never_starts(
    stub: pb_grpc.TextToImageServiceStub,
) -> None:
    """Fault 12: the next in the queue runs instead."""
    running = stub.Generate(long_request())
    wait_for(running, "progress")
    first = stub.Generate(request(steps=LONG_STEP_COUNT))  # of a size that shares no forwards
    second = stub.Generate(request(steps=1))
    assert wait_for(first, "queued").queued.position == 1
    assert wait_for(second, "queued").queued.position == 2
    first.cancel()
    while wait_for(second, "queued").queued.position != 1:
        pass
    running.cancel()
    assert kinds(second)[-1] == "completed"


def test_the_id_of_another_request_is_refused(stub: pb_grpc.TextToImageServiceStub) -> None:
    running = stub.Generate(request(steps=8, generation_id="mine", image_count=2))
    assert wait_for(running, "accepted").accepted.generation_id == "mine"
    with pytest.raises(grpc.RpcError) as raised:
        list(stub.Generate(request(generation_id="mine")))
    assert isinstance(raised.value, grpc.Call)
    assert raised.value.code() is grpc.StatusCode.ALREADY_EXISTS
    assert kinds(running)[-1] == "completed"


def test_concurrent_generations_all_get_their_own_image(
    stub: pb_grpc.TextToImageServiceStub,
) -> None:
    alone = {seed: image_bytes(stub.Generate(request(seed=seed))) for seed in range(4)}
    together: dict[int, bytes] = {}

    def generate(seed: int) -> None:
        together[seed] = image_bytes(stub.Generate(request(seed=seed)))

    threads = [threading.Thread(target=generate, args=(seed,)) for seed in alone]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed, data in together.items():
        first, second = (np.asarray(PIL.Image.open(io.BytesIO(d))) for d in (data, alone[seed]))
        # Equal up to rounding: a wider batch sums in another order.
        assert np.abs(first.astype(int) - second).max() <= 1
