"""Loading: an adapter that loads keeps neither the device nor other requests waiting."""

import asyncio
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

from safelight_service.core.events import Accepted, Event, Progress
from safelight_service.core.request import AdapterUse, GenerationRequest, Parameters
from safelight_service.engine import Engine, engine
from safelight_service.engine.lora.lora import Lora
from safelight_service.engine.lora.reading import read_lora
from safelight_service.settings import AdapterSettings, Settings
from support.engine.job_runs import SMALL, collect
from support.engine.tiny_models import MERGING, TinyModels
from support.pipelines.loras import make_lora

STEP_COUNT = 6
PLAIN = GenerationRequest(
    "a red circle", Parameters(**{**SMALL, "num_inference_steps": STEP_COUNT})
)
ADAPTED = replace(PLAIN, adapters=(AdapterUse("late"),))


class HeldReader:
    """Reads adapters as the engine does, once it is released."""

    def __init__(self) -> None:
        self.has_begun, self.is_released = threading.Event(), threading.Event()

    def __call__(self, *arguments: Any) -> Lora:
        """Read an adapter after the release."""
        self.has_begun.set()
        self.is_released.wait()
        return read_lora(*arguments)


def test_others_take_all_their_steps_while_an_adapter_loads(
    tiny_models: TinyModels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors = make_lora(tiny_models["sd15"].adapter.pipeline, 1, is_chosen=lambda n: "attn" in n)
    save_file(tensors, tmp_path / "late.safetensors")
    adapter = AdapterSettings(name="late", source=str(tmp_path), preload=False)
    model = tiny_models.settings("sd15").model_copy(update={"adapters": [adapter]})
    reader = HeldReader()
    monkeypatch.setattr(engine, "read_lora", reader)

    async def act() -> None:
        served = Engine(Settings(models=(model,), torch_threads=1, batching=MERGING))
        await served.start()
        try:
            await _check(served, reader)
        finally:
            await served.close()

    asyncio.run(act())


async def _check(served: Engine, reader: HeldReader) -> None:
    """Check the order of events, not their times."""
    order: list[tuple[str, Event]] = []
    running = asyncio.create_task(
        collect(served, PLAIN, lambda event: order.append(("old", event)))
    )
    late = asyncio.create_task(
        collect(served, ADAPTED, lambda event: order.append(("late", event)))
    )
    await asyncio.to_thread(reader.has_begun.wait)
    # Requests from before and after the beginning of the load run to their ends in the meantime.
    await running
    await collect(served, PLAIN, lambda event: order.append(("new", event)))
    accepted = [name for name, event in order if isinstance(event, Accepted)]
    assert "late" not in accepted
    for name in ("old", "new"):
        steps = [
            event.step for owner, event in order if owner == name and isinstance(event, Progress)
        ]
        assert steps == [*range(1, STEP_COUNT + 1)]
    reader.is_released.set()
    await late
