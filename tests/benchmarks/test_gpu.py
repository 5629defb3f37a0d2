"""The benchmark that seldom runs, for want of a GPU, still does."""

from pathlib import Path

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
