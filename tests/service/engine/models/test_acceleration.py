import json
import os
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import structlog
import torch
from accelerate.hooks import CpuOffload
from pydantic import ValidationError
from torch._dynamo.utils import counters
from torch._inductor.runtime.cache_dir_utils import default_cache_dir
from torch.nn.attention import SDPBackend

from safelight_service.engine.models.acceleration import (
    AccelerationError,
    accelerate,
    keep_compiled,
)
from safelight_service.settings import AccelerationSettings, BatchingSettings
from support.engine.job_runs import (
    Recorder,
    difference,
    draw,
    images_of,
    make_job,
    pixels_of,
    run_jobs,
)
from support.engine.tiny_models import TinyModels, reload
from support.pipelines.families import make_pipeline
from support.warm_process import WarmProcess

VARIABLE = "TORCHINDUCTOR_CACHE_DIR"

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("family", "settings", "message"),
    [
        ("flux-dev", {"channels_last": True}, "no convolutions"),
        ("qwen-image", {"vae_channels_last": True}, "of videos"),
        ("flux-dev", {"offload": "model"}, "other than the CPU"),
        ("flux-dev", {"attention_backend": "fast"}, "attention_backend = 'fast'"),
        ("qwen-image", {"attention_backend": "flash"}, "masks its text"),
        ("sana", {"attention_backend": "sage"}, "masks its text"),
        ("sd15", {"attention_backend": "native"}, "no choice of backends"),
        ("qwen-image", {"compile": "graphs"}, 'encoder_hidden_states differs.*try "regional"'),
    ],
)
def test_what_a_pipeline_cannot_have_is_refused_with_the_reason(
    family: str, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(AccelerationError, match=message):
        accelerate(make_pipeline(family), AccelerationSettings.model_validate(settings), CPU)


@pytest.mark.parametrize(
    "other", [{"compile": "full"}, {"compile": "graphs"}, {"quantization": "int8"}]
)
def test_what_cannot_work_together_is_refused_at_start(other: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="cannot be combined"):
        AccelerationSettings.model_validate({"offload": "model", **other})


def test_memory_layout_changes_no_more_than_rounding() -> None:
    plain, quick = make_pipeline("sd15"), make_pipeline("sd15")
    settings = AccelerationSettings(channels_last=True, vae_channels_last=True)
    accelerate(quick, settings, CPU)
    for layer in (quick.unet.conv_in, quick.vae.decoder.conv_in):
        assert layer.weight.is_contiguous(memory_format=torch.channels_last)
    assert difference(draw(reload(plain)), draw(reload(quick))) <= 1


def test_attention_backend_of_one_model_is_not_that_of_others() -> None:
    used: list[str] = []

    def note(backend: SDPBackend, **_: object) -> Any:
        used.append(backend.name)
        return nullcontext()

    exact, other = make_pipeline("flux-dev"), make_pipeline("flux-dev")
    accelerate(exact, AccelerationSettings(attention_backend="_native_math"), CPU)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(torch.nn.attention, "sdpa_kernel", note)
        draw(reload(other))
        assert not used
        draw(reload(exact))
        assert set(used) == {"MATH"}


def test_tiling_is_asked_of_the_vae() -> None:
    pipeline = make_pipeline("sd15")
    accelerate(pipeline, AccelerationSettings(vae_tiling=True), CPU)
    assert pipeline.vae.use_tiling


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch compiles for a CPU by it")
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")
def test_compiled_forwards_are_merged_and_not_compiled_for_each_width() -> None:
    """Widths come and go with the callers; to compile for each would hold all of them up."""
    pipeline, plain = make_pipeline("sd15"), reload(make_pipeline("sd15"))
    accelerate(pipeline, AccelerationSettings(compile="regional"), CPU)
    model = reload(pipeline)
    alone = [draw(plain, seed=seed) for seed in range(5)]

    def count_graphs(width: int) -> int:
        """Draw so many at once, and return how many graphs have been compiled since the start."""
        recorders = [Recorder() for _ in range(width)]
        jobs = [make_job(model, recorder, seed=seed) for seed, recorder in enumerate(recorders)]
        run_jobs(*jobs)
        assert set(jobs[0].widths) == {width}
        for recorder, expected in zip(recorders, alone, strict=False):
            [image] = images_of(recorder.events)
            assert difference(pixels_of(image), expected) <= 1
        graph_count: int = counters["stats"]["unique_graphs"]
        return graph_count

    count_graphs(1)
    compiled = count_graphs(2)
    assert compiled > 0
    assert count_graphs(5) == count_graphs(3) == compiled


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch compiles for a CPU by it")
def test_a_second_start_compiles_nothing_and_no_start_anything_once_it_is_ready(
    tiny_models: TinyModels, tmp_path: Path
) -> None:
    def start() -> dict[str, Any]:
        module = "tests.service.engine.compilation.compiled_engine"
        command = [module, str(tiny_models.folder("sd3")), str(tmp_path / "cache")]
        log = tmp_path / "log"
        log.touch()
        with WarmProcess(command, os.environ, str(log)) as process:
            lines = process.stdout.read().splitlines()
            assert process.wait() == 0, log.read_text()
        found: dict[str, Any] = json.loads(lines[-1])
        return found

    expected = {"ready": 1, "end": 1, "differences": [0, 0]}
    assert start() == {**expected, "cached": 0}
    assert start() == {**expected, "cached": 1}


def test_what_is_compiled_is_kept_where_nobody_else_can_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, default_cache_dir())  # as torch does
    keep_compiled(tmp_path / "of" / "ours")
    assert os.environ[VARIABLE] == str(tmp_path / "of" / "ours")
    assert (tmp_path / "of" / "ours").stat().st_mode & 0o777 == 0o700


def test_what_operators_say_of_the_compiled_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "/elsewhere")
    keep_compiled(tmp_path / "ours")
    keep_compiled(None)
    assert os.environ[VARIABLE] == "/elsewhere"
    assert not (tmp_path / "ours").exists()


def test_a_folder_for_the_compiled_that_cannot_be_written_is_told_and_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, default_cache_dir())  # as torch does
    (tmp_path / "file").touch()
    with structlog.testing.capture_logs() as logs:
        keep_compiled(tmp_path / "file" / "ours")
    assert [line["event"] for line in logs] == ["compile_cache_unwritable"]
    assert os.environ[VARIABLE] == default_cache_dir()


def test_blocks_are_compiled_only_where_they_are_named() -> None:
    settings = AccelerationSettings(compile="regional")
    with pytest.raises(AccelerationError, match="names no blocks"):
        accelerate(make_pipeline("sana"), settings, CPU)


def test_a_model_that_is_offloaded_is_brought_back_for_every_image() -> None:
    """Pipelines take their modules off the device when they end, and would put new hooks on them.

    Here the device is the CPU too, which shows all but the copying.
    """
    pipeline, plain = make_pipeline("sd15"), reload(make_pipeline("sd15"))
    pipeline.enable_model_cpu_offload(device="cpu")
    model = reload(pipeline, BatchingSettings(max_width=1))
    parts = (pipeline.text_encoder, pipeline.unet, pipeline.vae)
    brought: set[Any] = set()

    def bring(hook: Any, module: Any, *arguments: Any, **named: Any) -> Any:
        brought.add(module)
        return bring_back(hook, module, *arguments, **named)

    bring_back = CpuOffload.pre_forward
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(CpuOffload, "pre_forward", bring)
        for inputs in ("a red circle", "a blue square"):
            brought.clear()
            assert draw(model, inputs=inputs) == draw(plain, inputs=inputs)
            assert brought == set(parts)


def test_layers_that_are_offloaded_draw_the_same() -> None:
    pipeline, plain = make_pipeline("flux-dev"), reload(make_pipeline("flux-dev"))
    pipeline.enable_group_offload(onload_device=CPU, offload_type="leaf_level")
    model = reload(pipeline, BatchingSettings(max_width=1))
    for inputs in ("a red circle", "a blue square"):
        assert draw(model, inputs=inputs) == draw(plain, inputs=inputs)


def test_a_model_whose_layers_cannot_be_offloaded_is_refused() -> None:
    with pytest.raises(AccelerationError, match='offload = "group": HunyuanDiT2DModel'):
        accelerate(
            make_pipeline("hunyuan-dit"),
            AccelerationSettings(offload="group"),
            GPU,
        )


def test_int8_weights_draw_nearly_the_same() -> None:
    pytest.importorskip("torchao", reason="an extra, and loud on a machine without a GPU")
    plain, small = make_pipeline("flux-dev"), make_pipeline("flux-dev")
    accelerate(small, AccelerationSettings(quantization="int8"), CPU)
    quantized, exact = reload(small), reload(plain)
    assert quantized.size_bytes < exact.size_bytes
    assert 0 < difference(draw(exact), draw(quantized)) < 30


def test_fp8_needs_a_gpu_that_has_it() -> None:
    pytest.importorskip("torchao", reason="an extra, and loud on a machine without a GPU")
    with pytest.raises(AccelerationError, match="needs a GPU"):
        accelerate(make_pipeline("flux-dev"), AccelerationSettings(quantization="fp8"), CPU)
