"""The fake service answers as the contract says, so that tests of callers mean something."""

import io
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import grpc
import PIL.Image
import pytest
from safelight import (
    CallCancelledError,
    Client,
    Completed,
    GenerationExistsError,
    GenerationNotFoundError,
    GenerationOutcome,
    Image,
    InvalidRequestError,
    ModelNotFoundError,
    Preview,
    Progress,
    ServiceError,
    ServiceUnavailableError,
    UnauthenticatedError,
)
from safelight.testing import FakeService, Vector
from safelight.testing.generations import FakeGeneration
from safelight.v1 import text_to_image_pb2 as pb

SLOW = 5.0
"""Seconds of a step that no test waits for."""


@pytest.fixture
def client() -> Iterator[Client]:
    with FakeService() as target, Client(target) as client:
        yield client


def test_generation_is_whole_and_its_pictures_can_be_read(client: Client) -> None:
    with client.generate("x", image_count=2, preview_every=1, width=32, seed=7) as generation:
        events = [*generation]
    assert [event.step for event in events if type(event) is Progress] == [1, 1, 2, 2, 3, 3, 4, 4]
    previews = [event for event in events if type(event) is Preview]
    assert [(each.step, each.image_index) for each in previews] == [
        (step, index) for step in (1, 2, 3) for index in (0, 1)
    ]
    assert all(each.pil.size == (each.width, each.height) for each in previews)
    images = [event for event in events if type(event) is Image]
    assert [(image.seed, image.pil.format, image.pil.size) for image in images] == [
        (7, "PNG", (32, 64)),
        (8, "PNG", (32, 64)),
    ]
    assert images[0].pil.getpixel((0, 0)) != images[1].pil.getpixel((0, 0))
    assert type(events[-1]) is Completed
    assert events[-1].step_count == 8


@pytest.mark.parametrize("mime_type", ["image/jpeg", "image/webp"])
def test_preview_has_its_type(client: Client, mime_type: str) -> None:
    with client.generate("x", preview_every=2, preview_mime_type=mime_type) as generation:
        [preview] = [event for event in generation if type(event) is Preview]
    picture = PIL.Image.open(io.BytesIO(preview.data))
    picture.load()
    assert (picture.get_format_mimetype(), picture.size) == (mime_type, (16, 16))


def test_equal_requests_have_equal_images(client: Client) -> None:
    first, second, other = (client.text_to_image("x", seed=seed) for seed in (3, 3, 4))
    assert first.tobytes() == second.tobytes() != other.tobytes()


def test_all_bad_fields_are_named(client: Client) -> None:
    with pytest.raises(InvalidRequestError, match=r"parameters\.width: must be") as refusal:
        client.text_to_image("", width=17, num_inference_steps=0, output_mime_type="image/webp")
    assert [violation.field for violation in refusal.value.violations] == [
        "inputs",
        "output.mime_type",
        "parameters.width",
        "parameters.num_inference_steps",
    ]


def test_last_seed_is_bounded_too(client: Client) -> None:
    with client.generate("x", seed=2**63 - 2, image_count=2) as generation:
        assert generation.images()[1].seed == 2**63 - 1
    with (
        pytest.raises(InvalidRequestError, match=r"parameters\.seed"),
        client.generate("x", seed=2**63 - 1, image_count=2) as generation,
    ):
        generation.images()


def test_models(client: Client) -> None:
    [model] = client.list_models()
    assert client.get_model("fake") == client.get_model() == model
    for call in (client.get_model, lambda name: client.text_to_image("x", model=name)):
        with pytest.raises(ModelNotFoundError, match="choose one of: fake"):
            call("none")


def test_id_replays_a_generation_and_refuses_another_request(client: Client) -> None:
    first = client.text_to_image("x", generation_id="one")
    assert client.text_to_image("x", generation_id="one").tobytes() == first.tobytes()
    with client.watch("one") as watched:
        assert [image.pil.tobytes() for image in watched.images()] == [first.tobytes()]
    with pytest.raises(GenerationExistsError):
        client.text_to_image("y", generation_id="one")
    assert client.cancel("one") is GenerationOutcome.COMPLETED
    with pytest.raises(GenerationNotFoundError):
        client.cancel("two")


def test_cancel_ends_a_generation_for_all_watchers() -> None:
    with (
        FakeService(step_s=SLOW) as target,
        Client(target) as client,
        client.generate("x", generation_id="one") as generation,
    ):
        next(generation)
        with client.watch("one") as watched:
            next(watched)
            assert client.cancel("one") is GenerationOutcome.CANCELLED
            for each in (generation, watched):
                with pytest.raises(CallCancelledError, match="the generation was cancelled"):
                    each.images()


def test_generation_ends_without_watchers_or_lingers() -> None:
    request = pb.GenerateRequest(inputs="x")
    for linger_s, state in (
        (0, pb.GENERATION_STATE_CANCELLED),
        (60, pb.GENERATION_STATE_UNSPECIFIED),
    ):
        request.linger.FromSeconds(linger_s)
        generation = FakeGeneration(request, SLOW)
        generation.start()
        events = generation.watch(threading.Event())
        assert next(events).HasField("accepted")
        events.close()
        assert generation.state == state
        generation.stop()


def test_requests_are_kept() -> None:
    service = FakeService()
    with service as target, Client(target) as client:
        client.text_to_image("a red circle", seed=0)
        client.list_models()
    [generate, models] = service.requests
    assert isinstance(generate, pb.GenerateRequest)
    assert generate.parameters.HasField("seed")
    assert models == pb.ListModelsRequest()


def test_token_is_required() -> None:
    with FakeService(token="secret") as target:
        with Client(target, token="secret") as client:
            assert client.list_models()
        with Client(target, token="guess") as client:
            for call in (client.list_models, lambda: client.text_to_image("x")):
                with pytest.raises(UnauthenticatedError, match="authorization: Bearer TOKEN"):
                    call()


def test_vector_is_played_once_or_again() -> None:
    busy: Vector = {
        "name": "busy",
        "calls": [{"script": [{"status": {"code": "UNAVAILABLE", "pushback_ms": -1}}]}],
    }
    for repeats, code in ((False, "FAILED_PRECONDITION"), (True, "UNAVAILABLE")):
        service = FakeService(vectors=[busy], repeats=repeats)
        with service as target, Client(target) as client:
            with pytest.raises(ServiceUnavailableError):
                client.text_to_image("busy", linger=0)
            with pytest.raises(ServiceError) as second:
                client.text_to_image("busy", linger=0)
            assert second.value.code.name == code
            assert client.text_to_image("another prompt")


def test_two_vectors_of_a_name_are_refused() -> None:
    vector: Vector = {"name": "twice", "calls": []}
    with pytest.raises(ValueError, match="'twice'"):
        FakeService(vectors=[vector, vector])


def test_stop_ends_all_calls_and_threads() -> None:
    before = threading.active_count()
    with FakeService(step_s=SLOW) as target, grpc.insecure_channel(target) as channel:
        with Client(target) as client, client.generate("x") as generation:
            next(generation)
        grpc.channel_ready_future(channel).result(timeout=10)
    assert threading.active_count() <= before


def test_command_prints_its_target_and_ends() -> None:
    command = [sys.executable, "-m", "safelight.testing", "--port", "0", "--step-s", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            target = process.stdout.readline().strip()
            assert re.fullmatch(r"127\.0\.0\.1:\d+", target)
            with Client(target) as client:
                assert client.text_to_image("x").size == (64, 64)
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0
        finally:
            process.kill()
