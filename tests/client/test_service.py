"""The clients against the real service."""

import asyncio
import io
import json
import signal
import sys
from pathlib import Path
from subprocess import PIPE, Popen, run
from typing import Any

import numpy as np
import PIL.Image
import pytest
import safelight
from safelight import AsyncClient, Client
from safelight.events import Accepted, Completed, Image, Preview, Progress
from safelight.v1 import text_to_image_pb2 as pb

from support.running_service import RunningService
from support.tcp_proxy import TcpProxy

PROMPT = "a red circle on a blue background"


def command(service: RunningService, *arguments: str) -> list[str]:
    """Return the command line that generates on the service."""
    program = [sys.executable, "-W", "error", "-m", "safelight", "generate"]
    return [*program, *arguments, "--target", service.target]


def test_same_seed_gives_the_same_image(service: RunningService) -> None:
    with Client(service.target) as client:
        images = [client.text_to_image(PROMPT, seed=7, num_inference_steps=2) for _ in range(2)]
    assert images[0].tobytes() == images[1].tobytes()


def test_both_clients_get_the_same_image(service: RunningService) -> None:
    async def generate() -> PIL.Image.Image:
        async with AsyncClient(service.target) as client:
            return await client.text_to_image(PROMPT, seed=7, num_inference_steps=2)

    with Client(service.target) as client:
        image = client.text_to_image(PROMPT, seed=7, num_inference_steps=2)
    assert asyncio.run(generate()).tobytes() == image.tobytes()


def test_events_come_in_the_order_of_the_contract(service: RunningService) -> None:
    with (
        Client(service.target) as client,
        client.generate(
            PROMPT, num_inference_steps=4, image_count=2, preview_every=2
        ) as generation,
    ):
        events = [*generation]
    assert isinstance(events[0], Accepted)
    assert isinstance(events[-1], Completed)
    assert [event.image_index for event in events if isinstance(event, Image)] == [0, 1]
    assert [event.step for event in events if isinstance(event, Progress)][-1] == 4
    assert {event.step for event in events if isinstance(event, Preview)} <= {2}


def test_second_image_is_that_of_the_next_seed(service: RunningService) -> None:
    with Client(service.target) as client:
        with client.generate(PROMPT, seed=7, num_inference_steps=2, image_count=2) as generation:
            second = generation.images()[1]
        alone = client.text_to_image(PROMPT, seed=second.seed, num_inference_steps=2)
    assert second.seed == 8
    # But for rounding: the images of one request share forwards.
    difference = np.asarray(second.pil).astype(int) - np.asarray(alone)
    assert np.abs(difference).max() <= 1


def test_all_mistakes_are_reported_at_once(service: RunningService) -> None:
    with Client(service.target) as client, pytest.raises(safelight.InvalidRequestError) as raised:
        client.text_to_image("", width=1001, num_inference_steps=0, output_mime_type="image/gif")
    assert {violation.field for violation in raised.value.violations} == {
        "inputs",
        "parameters.width",
        "parameters.num_inference_steps",
        "output.mime_type",
    }


def test_model_that_is_not_served_is_not_found(service: RunningService) -> None:
    with Client(service.target) as client, pytest.raises(safelight.ModelNotFoundError):
        client.get_model("no-such-model")


def test_running_generation_keeps_its_id_to_itself(service: RunningService) -> None:
    with (
        Client(service.target) as client,
        client.generate(PROMPT, generation_id="taken", num_inference_steps=150) as first,
    ):
        assert isinstance(next(first), Accepted)
        with (
            pytest.raises(safelight.GenerationExistsError),
            client.generate(PROMPT, generation_id="taken") as second,
        ):
            next(second)


def test_generation_is_watched_and_cancelled_by_its_id(service: RunningService) -> None:
    with (
        Client(service.target) as client,
        client.generate(PROMPT, generation_id="watched", num_inference_steps=150) as generation,
    ):
        next(generation)
        with client.watch("watched") as watched:
            assert isinstance(next(watched), Accepted)
            assert client.cancel("watched") is safelight.GenerationOutcome.CANCELLED
            for stream in (watched, generation):
                with pytest.raises(safelight.CallCancelledError):
                    stream.images()
        with pytest.raises(safelight.GenerationNotFoundError):
            client.cancel("never-seen")


def test_left_generation_is_stopped_although_it_could_linger(service: RunningService) -> None:
    """Fault 15: it has ended already when the block is left."""
    with Client(service.target) as client:
        with client.generate(PROMPT, generation_id="left", num_inference_steps=150) as generation:
            for event in generation:
                if isinstance(event, Progress):
                    break
        with client.watch("left") as watched, pytest.raises(safelight.CallCancelledError):
            watched.images()


def test_cut_connection_costs_neither_the_image_nor_a_second_generation(
    service: RunningService,
) -> None:
    request: dict[str, Any] = {"num_inference_steps": 30, "width": 64, "height": 64, "seed": 11}
    with TcpProxy(service.target) as proxy, Client(proxy.target) as client:
        steps: list[int] = []
        with client.generate(PROMPT, **request) as generation:
            for event in generation:
                if isinstance(event, Progress):
                    steps.append(event.step)
                    if len(steps) in (1, 4):
                        proxy.cut()
                elif isinstance(event, Completed):
                    completed = event
        [image] = generation.images()
        assert proxy.connection_count == 3
    assert steps == sorted({*steps})  # each once
    assert set(completed.batch_widths) == {1}  # nothing else ran alongside it
    with Client(service.target) as client, client.generate(PROMPT, **request) as alone:
        assert alone.images()[0].data == image.data


def test_field_of_a_newer_contract_is_refused_by_its_number(service: RunningService) -> None:
    request = pb.GenerateRequest(inputs=PROMPT)
    request.parameters.MergeFromString(b"\xf8\x06\x01")  # Field 111 is 1.
    with (
        Client(service.target) as client,
        pytest.raises(safelight.InvalidRequestError) as raised,
        client.stream(request) as generation,
    ):
        generation.images()
    assert [violation.field for violation in raised.value.violations] == ["parameters.111"]


def test_passed_timeout_stops_the_generation(service: RunningService) -> None:
    with Client(service.target) as client, pytest.raises(safelight.DeadlineExceededError):
        client.text_to_image(PROMPT, num_inference_steps=150, timeout=0.2)


def test_default_model_is_ready_and_says_what_it_takes(service: RunningService) -> None:
    with Client(service.target) as client:
        model = client.get_model()
        assert client.list_models()[0] == model
    assert (model.is_default, model.state) == (True, safelight.ModelState.READY)
    assert model.capabilities is not None
    assert model.capabilities.schedulers


def test_command_line_writes_the_image_of_the_client(service: RunningService) -> None:
    arguments = ["--seed", "7", "--steps", "2", "-q", "-o", "-"]
    written = run(command(service, PROMPT, *arguments), stdout=PIPE, check=True).stdout
    with Client(service.target) as client:
        image = client.text_to_image(PROMPT, seed=7, num_inference_steps=2)
    assert PIL.Image.open(io.BytesIO(written)).tobytes() == image.tobytes()


def test_command_line_lists_every_mistake(service: RunningService) -> None:
    process = run(
        command(service, "", "--width", "1001", "-q"), stderr=PIPE, text=True, check=False
    )
    assert process.returncode == 2
    assert {line.split(":")[0] for line in process.stderr.splitlines()} == {"PROMPT", "--width"}


def test_interrupted_command_line_frees_the_device(service: RunningService, tmp_path: Path) -> None:
    with Popen(
        command(service, PROMPT, "--steps", "150", "--json"),
        cwd=tmp_path,
        stdout=PIPE,
        stderr=PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["event"] == "accepted"
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == 130
    with Client(service.target, timeout=20) as client:
        client.text_to_image(PROMPT, num_inference_steps=1)
