"""The blocking client, against a service that plays scripts."""

import inspect
import threading
import typing
from typing import Any

import grpc
import pytest
import safelight
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import ErrorInfo
from huggingface_hub import InferenceClient
from safelight import Client
from safelight.events import Accepted, Completed, ModelLoading, Preview, Progress, Queued
from safelight.v1 import text_to_image_pb2 as pb

from tests.client.scripted_service import (
    HOLD,
    ScriptedService,
    accepted,
    chunk,
    completed,
    failure,
    header,
    image,
    png,
    progress,
    status,
    whole_generation,
)

pytestmark = pytest.mark.usefixtures("scripted")


def test_text_to_image_returns_a_pillow_image(scripted: ScriptedService, client: Client) -> None:
    scripted.play(whole_generation())
    image = client.text_to_image("a red circle")
    assert (image.size, image.getpixel((0, 0))) == ((16, 16), (255, 0, 0))


def test_text_to_image_takes_the_options_of_huggingface_hub_in_its_order() -> None:
    theirs = list(inspect.signature(InferenceClient.text_to_image).parameters)[2:]
    ours = list(typing.get_type_hints(safelight.TextToImageOptions))
    assert [name for name in ours if name in theirs] == theirs[: theirs.index("extra_body")]


def test_every_option_arrives_in_its_field(scripted: ScriptedService, client: Client) -> None:
    scripted.play(accepted(2), image(0), image(1), completed())
    with client.generate(
        "a red circle",
        negative_prompt="blue",
        height=64,
        width=128,
        num_inference_steps=5,
        guidance_scale=0.0,
        model="shapes",
        scheduler="euler",
        seed=0,
        generation_id="mine",
        linger=2.5,
        output_mime_type="image/webp",
        output_quality=80,
        image_count=2,
        preview_every=3,
        preview_mime_type="image/webp",
        preview_max_side_px=32,
    ) as generation:
        generation.images()
    assert scripted.requests == [
        pb.GenerateRequest(
            inputs="a red circle",
            parameters=pb.TextToImageParameters(
                negative_prompt="blue",
                height=64,
                width=128,
                num_inference_steps=5,
                guidance_scale=0.0,
                scheduler="euler",
                seed=0,
            ),
            model="shapes",
            generation_id="mine",
            image_count=2,
            output=pb.OutputOptions(mime_type="image/webp", quality=80),
            preview=pb.PreviewOptions(interval_steps=3, mime_type="image/webp", max_side_px=32),
            linger=Duration(seconds=2, nanos=500_000_000),
        )
    ]


def test_absent_options_stay_unset(scripted: ScriptedService, client: Client) -> None:
    scripted.play(whole_generation())
    client.text_to_image("a red circle", seed=None)
    assert not scripted.requests[0].parameters.ListFields()
    assert not scripted.requests[0].HasField("image_count")


def test_option_that_does_not_exist_is_refused_like_an_argument(client: Client) -> None:
    with pytest.raises(TypeError, match="unknown option 'widht'; did you mean 'width'"):
        client.text_to_image("a red circle", widht=64)  # type: ignore[call-arg]


def test_text_to_image_refuses_the_options_of_several_images(client: Client) -> None:
    with pytest.raises(TypeError, match="unknown option 'image_count'"):
        client.text_to_image("a red circle", image_count=2)  # type: ignore[call-arg]


def test_model_is_waited_for_by_default(scripted: ScriptedService, client: Client) -> None:
    scripted.play(whole_generation())
    client.text_to_image("a red circle")
    assert scripted.metadata["x-wait-for-model"] == "true"
    assert scripted.metadata["x-use-cache"] == "true"


def test_model_is_not_waited_for_when_the_caller_says_so(
    scripted: ScriptedService, client: Client
) -> None:
    scripted.play(whole_generation())
    client.text_to_image("a red circle", wait_for_model=False, use_cache=False)
    assert scripted.metadata["x-wait-for-model"] == "false"
    assert scripted.metadata["x-use-cache"] == "false"


def test_events_arrive_typed_and_in_order(scripted: ScriptedService, client: Client) -> None:
    scripted.play(whole_generation())
    with client.generate("a red circle") as generation:
        names = [type(event).__name__ for event in generation]
    steps = ["Progress", "Preview"] * 3 + ["Progress"]
    assert names == ["ModelLoading", "Accepted", "Queued", "Queued", *steps, "Image", "Completed"]


def test_unset_fields_are_none_and_durations_seconds(
    scripted: ScriptedService, client: Client
) -> None:
    scripted.play(whole_generation())
    with client.generate("a red circle") as generation:
        events = list(generation)
    assert events[0] == ModelLoading(model="shapes", fraction=None, elapsed_s=2.5)
    assert events[2:4] == [
        Queued(position=2, estimated_wait_s=None),
        Queued(position=1, estimated_wait_s=1.5),
    ]
    assert events[4] == Progress(
        step=1, step_count=4, image_index=0, elapsed_s=0.5, estimated_remaining_s=1.5
    )
    assert isinstance(events[-1], Completed)
    assert events[-1].timings.total_s == 2.0
    assert events[-1].batch_widths == {2: 4}
    assert events[-1].cache is safelight.CacheStatus.MISS


def test_accepted_settles_the_parameters(scripted: ScriptedService, client: Client) -> None:
    scripted.play(whole_generation())
    with client.generate("a red circle") as generation:
        sent_id = generation.generation_id
        generation.images()
        assert sent_id == scripted.requests[-1].generation_id
        assert generation.accepted is not None
        assert generation.accepted.parameters == safelight.Parameters(
            seed=7, guidance_scale=0.0, num_inference_steps=4
        )
        assert generation.generation_id == "generation-1"


def test_preview_is_decoded_to_a_pillow_image(scripted: ScriptedService, client: Client) -> None:
    scripted.play(whole_generation())
    with client.generate("a red circle") as generation:
        preview = next(event for event in generation if isinstance(event, Preview))
    assert preview.pil.size == (16, 16)


def test_images_includes_those_that_were_seen_already(
    scripted: ScriptedService, client: Client
) -> None:
    scripted.play(accepted(2), image(0), image(1), completed())
    with client.generate("a red circle", image_count=2) as generation:
        for event in generation:
            if isinstance(event, safelight.Image):
                break
        assert [image.seed for image in generation.images()] == [7, 8]


def test_leaving_the_block_cancels_on_the_service(
    scripted: ScriptedService, client: Client
) -> None:
    """Fault 15: by `break`."""
    scripted.play(accepted(), progress(1), HOLD)
    with client.generate("a red circle") as generation:
        for event in generation:
            if isinstance(event, Progress):
                break
    assert scripted.cancelled.wait(timeout=5)


def test_leaving_the_block_cancels_by_id_what_would_linger(
    scripted: ScriptedService, client: Client
) -> None:
    scripted.play(accepted(), progress(1), HOLD)
    for linger in (5.0, 0.0):
        with client.generate("a red circle", linger=linger) as generation:
            next(generation)
    assert scripted.cancelled_ids == [scripted.requests[0].generation_id]
    assert scripted.requests[1].generation_id == ""


def test_what_has_ended_is_not_cancelled(scripted: ScriptedService, client: Client) -> None:
    scripted.play(whole_generation())
    client.text_to_image("a red circle")
    info = ErrorInfo(reason="QUEUE_FULL", domain="safelight")
    scripted.play(status(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", info))
    with pytest.raises(safelight.QueueFullError):
        client.text_to_image("a red circle")
    assert not scripted.cancelled_ids


def test_another_image_after_a_break_is_not_believed(
    scripted: ScriptedService, client: Client
) -> None:
    broken = status(grpc.StatusCode.UNAVAILABLE, "Socket closed")
    scripted.play_in_turn(
        [accepted(2), *image(0), broken],
        [accepted(2), *image(0, "blue"), *image(1), completed()],
    )
    with (
        pytest.raises(safelight.IntegrityError, match="before the connection broke"),
        client.generate("a red circle", image_count=2) as generation,
    ):
        generation.images()


@pytest.mark.parametrize(
    ("linger", "first"),
    [(0.0, [accepted()]), (5.0, [])],
    ids=["no linger", "nothing accepted"],
)
def test_not_every_break_is_mended(
    linger: float, first: list[Any], scripted: ScriptedService, client: Client
) -> None:
    broken = status(grpc.StatusCode.UNAVAILABLE, "Socket closed", ErrorInfo())
    scripted.play(*first, broken)
    with (
        pytest.raises(safelight.ServiceUnavailableError),
        client.generate("a red circle", linger=linger) as generation,
    ):
        generation.images()


@pytest.mark.parametrize(("pushback_ms", "call_count"), [(1, 3), (-1, 1)])
def test_what_has_not_begun_is_called_again_unless_the_service_says_not_to(
    pushback_ms: int, call_count: int, scripted: ScriptedService, client: Client
) -> None:
    """Fault 30: by the client."""
    scripted.pushback_ms = pushback_ms
    unavailable = status(grpc.StatusCode.UNAVAILABLE, "the service is stopping")
    scripted.play_in_turn([unavailable], [unavailable], [*whole_generation()])
    if call_count == 1:
        with pytest.raises(safelight.ServiceUnavailableError):
            client.text_to_image("a red circle")
    else:
        client.text_to_image("a red circle")
    assert len(scripted.requests) == call_count


def test_a_call_that_has_begun_is_not_repeated_on_any_pushback(
    scripted: ScriptedService, client: Client
) -> None:
    """Fault 30: a failure in mid-stream."""
    scripted.pushback_ms = 1
    scripted.play(accepted(), status(grpc.StatusCode.UNAVAILABLE, "the service is stopping"))
    with client.generate("a red circle", linger=0) as generation:
        assert isinstance(next(generation), Accepted)
        with pytest.raises(safelight.ServiceUnavailableError):
            next(generation)
    assert len(scripted.requests) == 1


def test_error_within_the_block_cancels_on_the_service(
    scripted: ScriptedService, client: Client
) -> None:
    scripted.play(accepted(), HOLD)

    def fail(_: object) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), client.generate("a red circle") as generation:
        fail(next(generation))
    assert scripted.cancelled.wait(timeout=5)


def test_cancel_from_another_thread_ends_the_iteration(
    scripted: ScriptedService, client: Client
) -> None:
    scripted.play(accepted(), HOLD)
    with client.generate("a red circle") as generation:
        next(generation)
        threading.Thread(target=generation.cancel).start()
        with pytest.raises(safelight.CallCancelledError):
            next(generation)
    assert scripted.cancelled.wait(timeout=5)


def test_broken_image_cancels_on_the_service(scripted: ScriptedService, client: Client) -> None:
    scripted.play(accepted(), header(png(), sha256="0" * 64), chunk(png()), HOLD)
    with pytest.raises(safelight.IntegrityError):
        client.text_to_image("a red circle")
    assert scripted.cancelled.wait(timeout=5)


def test_stream_that_ends_early_is_a_protocol_error(
    scripted: ScriptedService, client: Client
) -> None:
    scripted.play(accepted(), progress(1))
    with pytest.raises(safelight.ProtocolError, match="closed the stream before"):
        client.text_to_image("a red circle")


def test_error_in_mid_stream_is_raised_after_the_events_before_it(
    scripted: ScriptedService, client: Client
) -> None:
    scripted.play(
        accepted(),
        progress(1),
        failure(grpc.StatusCode.INTERNAL, "INTERNAL", "internal error, id=1"),
    )
    with client.generate("a red circle") as generation:
        assert isinstance(next(generation), Accepted)
        assert isinstance(next(generation), Progress)
        with pytest.raises(safelight.InternalServiceError, match="id=1"):
            next(generation)


def test_passed_timeout_is_a_deadline_exceeded_error(
    scripted: ScriptedService, client: Client
) -> None:
    scripted.play(accepted(), HOLD)
    with pytest.raises(safelight.DeadlineExceededError):
        client.text_to_image("a red circle", timeout=0.05)
    assert scripted.cancelled.wait(timeout=5)


def test_timeout_of_the_client_holds_for_every_call(scripted: ScriptedService) -> None:
    with Client(scripted.target, timeout=30) as client:
        client.list_models()
    assert scripted.time_remaining is not None
    assert 0 < scripted.time_remaining < 31  # gRPC rounds up what it sends


def test_timeout_of_none_lifts_that_of_the_client(scripted: ScriptedService) -> None:
    with Client(scripted.target, timeout=30) as client:
        client.list_models(timeout=None)
    assert scripted.time_remaining is None or scripted.time_remaining > 1e6


def test_generation_is_iterated_in_its_block_only(client: Client) -> None:
    with pytest.raises(RuntimeError, match="enter it first"):
        next(client.generate("a red circle"))


def test_generation_runs_once(scripted: ScriptedService, client: Client) -> None:
    scripted.play(whole_generation())
    generation = client.generate("a red circle")
    with generation:
        generation.images()
    with pytest.raises(RuntimeError, match="runs once"), generation:
        pass


def test_models_are_described(scripted: ScriptedService, client: Client) -> None:
    scripted.models = [
        pb.Model(
            name="shapes",
            is_default=True,
            state=pb.MODEL_STATE_READY,
            capabilities=pb.ModelCapabilities(
                pipeline_class="StableDiffusionPipeline",
                defaults=pb.TextToImageParameters(width=256, num_inference_steps=20),
                schedulers=[pb.Scheduler(name="DDIMScheduler", aliases=["ddim"])],
                limits=pb.ModelLimits(max_side_px=512),
                device_type="cuda",
            ),
        ),
        pb.Model(name="later", state=pb.MODEL_STATE_NOT_LOADED),
    ]
    shapes, later = client.list_models()
    assert shapes == client.get_model() == client.get_model("shapes")
    assert shapes.state is safelight.ModelState.READY
    assert shapes.capabilities is not None
    assert shapes.capabilities.defaults == safelight.Parameters(width=256, num_inference_steps=20)
    assert shapes.capabilities.schedulers[0].aliases == ("ddim",)
    assert shapes.capabilities.limits.max_side_px == 512
    assert shapes.capabilities.device_type == "cuda"
    assert shapes.capabilities.limits.max_prompt_token_count is None
    assert later.capabilities is None


def test_state_of_a_newer_contract_is_unknown(scripted: ScriptedService, client: Client) -> None:
    scripted.models = [pb.Model(name="shapes")]
    scripted.models[0].MergeFromString(b"\x20\x63")  # Field 4, the state, is 99.
    assert client.get_model().state is safelight.ModelState.UNKNOWN
