"""Calibration: what a curve changes, and what it refuses."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from safelight_service.cli import app
from safelight_service.engine.calibration import calibrate_model
from safelight_service.engine.models.loading import load_model
from safelight_service.engine.models.reuse_curves import CURVES_FILE, ReuseCurves
from safelight_service.engine.sampling.reuse import choose_steps
from safelight_service.settings import (
    BatchingSettings,
    ConfigurationError,
    DefaultSettings,
    Settings,
)
from support.engine.job_runs import Recorder, make_job
from support.engine.tiny_models import TinyModels

STEPS = 6


def configure(tiny_models: TinyModels, profiles: Path | None) -> Settings:
    small = DefaultSettings(width=64, height=64)
    settings = tiny_models.settings("sd15").model_copy(update={"defaults": small})
    return Settings(
        models=(settings,),
        torch_threads=1,
        batching=BatchingSettings(max_width=8, profiles_file=profiles),
    )


def test_the_next_load_uses_a_curve_of_all_steps_and_has_another_identity(
    tiny_models: TinyModels, tmp_path: Path
) -> None:
    settings = configure(tiny_models, tmp_path / "profiles.json")
    file, scheduler = calibrate_model(settings, "sd15", ["a red circle"], "ddim", STEPS)
    assert (file, scheduler) == (tmp_path / CURVES_FILE, "ddim")
    plain = load_model(settings.models[0], settings.batching)
    model = load_model(settings.models[0], settings.batching, reuse_curves=ReuseCurves(file))
    assert model.identity != plain.identity
    [errors] = model.reuse_curves.values()
    assert len(errors) == STEPS
    assert errors[0] == errors[1] == errors[-1] == max(errors)
    assert all(error > 0 for error in errors)
    assert len({*errors[2:-1]}) > 1
    job = make_job(model, Recorder(), scheduler="ddim", num_inference_steps=STEPS, step_reuse=0.4)
    assert job.images[0].reuse.steps == choose_steps(STEPS, 0.4, errors)
    other = make_job(
        model, Recorder(), scheduler="euler", num_inference_steps=STEPS, step_reuse=0.4
    )
    assert other.images[0].reuse.steps == choose_steps(STEPS, 0.4)


def test_curves_of_several_schedulers_are_kept_by_model(tmp_path: Path) -> None:
    curves = ReuseCurves(tmp_path / "folder" / CURVES_FILE)
    curves.put("one", "ddim", [1.0, 2.0])
    curves.put("one", "euler", [3.0])
    curves.put("two", "ddim", [4.0])
    assert curves.get("one") == {"ddim": (1.0, 2.0), "euler": (3.0,)}
    assert curves.get("two") == {"ddim": (4.0,)}
    assert curves.get("three") == {}


@pytest.mark.parametrize("text", ["", "[1]", "{", '{"x": 1'])
def test_an_unreadable_file_counts_as_empty(tmp_path: Path, text: str) -> None:
    file = tmp_path / CURVES_FILE
    file.write_text(text)
    assert ReuseCurves(file).get("one") == {}


def test_an_unknown_model_and_a_missing_file_are_refused(tiny_models: TinyModels) -> None:
    settings = configure(tiny_models, None)
    with pytest.raises(ConfigurationError, match="no model 'other'; there are: sd15"):
        calibrate_model(settings, "other")
    with pytest.raises(ConfigurationError, match="set batching"):
        calibrate_model(settings, "sd15")


def test_the_command_names_an_unknown_model() -> None:
    result = CliRunner().invoke(app, ["calibrate", "other"])
    assert result.exit_code == 2
    assert "there is no model 'other'; there are: shapes" in result.output
