"""The benchmark that seldom runs, for want of a GPU, still does."""

from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.architectures import ARCHITECTURES
from benchmarks.architectures import make_pipeline as make_architecture
from benchmarks.forwards import WIDTHS
from benchmarks.gpu import Case, measure
from safelight_service.engine.loading import load_model
from safelight_service.settings import ModelSettings
from tests.service.pipelines.families import make_pipeline


def test_a_case_is_measured_through_the_service_and_without(tmp_path: Path) -> None:
    make_pipeline("flux-dev").save_pretrained(tmp_path)
    [(case, figure)] = measure(str(tmp_path), [Case("flux-dev", 64, 4, None)], "eager", pictures=4)
    assert str(case) == "flux-dev 64 px 4 steps"
    assert tuple(figure.forward_s) == WIDTHS
    seconds = (figure.step_s, figure.disturbed_step_s, *figure.forward_s.values())
    assert all(0 < each < 60 for each in seconds)
    assert figure.one_per_s > 0
    assert figure.eight_per_s > 0


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_architectures_are_loaded_as_the_service_loads_them(
    tmp_path: Path, architecture: str
) -> None:
    make_architecture(architecture, torch.device("cpu"), shrunk=True).save_pretrained(tmp_path)
    model = load_model(ModelSettings(name=architecture, source=str(tmp_path), device="cpu"))
    assert model.capabilities.has_previews


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_schedulers_stay_on_the_cpu_when_an_architecture_is_built_elsewhere(
    architecture: str,
) -> None:
    pipeline: Any = make_architecture(architecture, torch.device("meta"), shrunk=True)
    tensors = [value for value in vars(pipeline.scheduler).values() if torch.is_tensor(value)]
    assert tensors
    assert {tensor.device.type for tensor in tensors} == {"cpu"}
    assert pipeline.vae.device.type == "meta"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_nothing_of_an_architecture_is_in_training(architecture: str) -> None:
    pipeline: Any = make_architecture(architecture, torch.device("meta"), shrunk=True)
    modules = [each for each in pipeline.components.values() if isinstance(each, torch.nn.Module)]
    assert len(modules) >= 3
    assert not any(module.training for module in modules)
