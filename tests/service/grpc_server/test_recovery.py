"""A service that is killed, and continues a generation after its restart."""

from pathlib import Path

import grpc
import pytest
from safelight.v1 import text_to_image_pb2 as pb
from safelight.v1.text_to_image_pb2_grpc import TextToImageServiceStub

from support.running_service import RunningService, run_service

STEPS, KILLED_AT = 40, 15
MOST_REPEATED = 2


def generate(
    service: RunningService, generation_id: str, kill_at: int | None = None
) -> list[pb.GenerationEvent]:
    """Return the events of a generation, up to its end or to the death of the service."""
    request = pb.GenerateRequest(
        inputs="a red circle",
        parameters=pb.TextToImageParameters(num_inference_steps=STEPS, seed=7),
        generation_id=generation_id,
    )
    events = []
    with grpc.insecure_channel(service.target, [("grpc.enable_retries", 0)]) as channel:
        try:
            for response in TextToImageServiceStub(channel).Generate(request):
                events.append(response.event)
                if kill_at is not None and response.event.progress.step >= kill_at:
                    service.process.kill()
        except grpc.RpcError:
            assert kill_at is not None
    return events


def digest_of(events: list[pb.GenerationEvent]) -> str:
    [digest] = [event.image.sha256 for event in events if event.HasField("image")]
    return digest


@pytest.mark.slow
def test_a_service_continues_a_generation_after_it_was_killed(tmp_path: Path) -> None:
    with run_service(recovery__folder=str(tmp_path), batching__max_width="1") as service:
        undisturbed = generate(service, "undisturbed")
        broken = generate(service, "broken", KILLED_AT)
    reached = max(event.progress.step for event in broken)
    assert KILLED_AT <= reached < STEPS
    with run_service(recovery__folder=str(tmp_path), batching__max_width="1") as service:
        again = generate(service, "broken")
        assert not any(event.HasField("restarted") for event in generate(service, "other"))
    assert digest_of(again) == digest_of(undisturbed)
    [restarted] = [event.restarted for event in again if event.HasField("restarted")]
    assert restarted.recovered_step_count >= reached - MOST_REPEATED
    assert again[-1].completed.restart_count == 1
    assert again[-1].completed.usage.step_count == STEPS - restarted.recovered_step_count
