"""Adapters on accelerated models: they work, or the settings are refused."""

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch._dynamo.utils import counters

from safelight_service.engine.compilation.graphs import BucketedForward
from safelight_service.engine.lora.conversion import convert
from safelight_service.engine.lora.lora import Lora, Mixture
from safelight_service.engine.lora.naming import LoraError
from safelight_service.engine.merging.families import RULES
from safelight_service.engine.models.acceleration import accelerate
from safelight_service.engine.models.loaded_model import LoadedModel
from safelight_service.settings import AccelerationSettings, AdapterSettings, ModelSettings
from support.engine.job_runs import difference, draw
from support.engine.tiny_models import reload
from support.pipelines.families import make_pipeline
from support.pipelines.loras import make_dora, make_lora

CPU = torch.device("cpu")


def load(pipeline: Any, settings: dict[str, Any]) -> LoadedModel:
    """Load a pipeline with acceleration, as the service does."""
    accelerate(pipeline, AccelerationSettings.model_validate(settings), CPU)
    graphs = None
    if settings.get("compile") == "graphs":
        rule = RULES[type(pipeline).__name__]
        graphs = BucketedForward(pipeline.unet, rule, CPU, widths=[1], backend="eager")
    return reload(pipeline, graphs=graphs)


def mix(model: LoadedModel, tensors: dict[str, torch.Tensor]) -> Mixture:
    effects = convert(tensors, {}, model.adapter.pipeline, CPU)
    return Mixture(((Lora("it", "it", effects), 0.7),))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")
@pytest.mark.parametrize(
    "settings", [{"compile": "full"}, {"compile": "graphs"}, {"channels_last": True}]
)
def test_adapters_have_their_effect_on_an_accelerated_model(settings: dict[str, Any]) -> None:
    plain, quick = load(make_pipeline("sd15"), {}), load(make_pipeline("sd15"), settings)
    tensors = make_lora(plain.adapter.pipeline, 1)
    counters.clear()
    expected = draw(plain, mixture=mix(plain, tensors))
    assert difference(draw(quick, mixture=mix(quick, tensors)), expected) <= 1
    assert difference(draw(plain), expected) > 10
    assert counters["stats"]["unique_graphs"] == 0  # compiled code would leave the adapter out


def test_adapters_have_their_effect_on_quantized_weights() -> None:
    pytest.importorskip("torchao", reason="an extra, and loud on a machine without a GPU")
    plain, small = (
        load(make_pipeline("flux-dev"), {}),
        load(make_pipeline("flux-dev"), {"quantization": "int8"}),
    )
    tensors = make_lora(plain.adapter.pipeline, 1)
    expected = draw(plain, mixture=mix(plain, tensors))
    assert difference(draw(small, mixture=mix(small, tensors)), expected) < 30
    with pytest.raises(LoraError, match="a DoRA needs weights that are not quantized"):
        mix(small, make_dora(plain.adapter.pipeline, 1))


def test_compiled_blocks_are_refused_at_start() -> None:
    with pytest.raises(ValidationError, match="adapters cannot be combined"):
        ModelSettings(
            name="it",
            source="folder",
            adapters=[AdapterSettings(name="one", file="one.safetensors")],
            acceleration=AccelerationSettings(compile="regional"),
        )


def test_factors_are_on_the_device_that_runs_offloaded_layers() -> None:
    pipeline = make_pipeline("sd15")
    tensors = make_lora(pipeline, 1)
    getattr(pipeline, "unet").to("meta")  # noqa: B009
    effects = convert(tensors, {}, pipeline, CPU)
    devices = {tensor.device for effect in effects["unet"].values() for tensor in effect}
    assert devices == {CPU}
