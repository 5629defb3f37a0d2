from contextlib import nullcontext
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch.nn.attention import SDPBackend

from safelight_service.engine.acceleration import AccelerationError, accelerate
from safelight_service.settings import AccelerationSettings
from tests.service.engine.job_runs import difference, draw
from tests.service.pipelines.families import make_pipeline
from tests.service.tiny_models import reload

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("family", "settings", "message"),
    [
        ("flux-dev", {"channels_last": True}, "no convolutions"),
        ("flux-dev", {"offload": "model"}, "other than the CPU"),
        ("flux-dev", {"attention_backend": "fast"}, "attention_backend = 'fast'"),
        ("qwen-image", {"attention_backend": "flash"}, "masks its text"),
        ("sana", {"attention_backend": "sage"}, "masks its text"),
        ("sd15", {"attention_backend": "native"}, "asks for none"),
    ],
)
def test_what_a_pipeline_cannot_have_is_refused_with_the_reason(
    family: str, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(AccelerationError, match=message):
        accelerate(make_pipeline(family), AccelerationSettings.model_validate(settings), CPU)


@pytest.mark.parametrize("other", [{"compile": "full"}, {"quantization": "int8"}])
def test_what_cannot_work_together_is_refused_at_start(other: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="cannot be combined"):
        AccelerationSettings.model_validate({"offload": "model", **other})


def test_memory_layout_changes_no_more_than_rounding() -> None:
    plain, quick = make_pipeline("sd15"), make_pipeline("sd15")
    settings = AccelerationSettings(channels_last=True)
    accelerate(quick, settings, CPU)
    assert quick.unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
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


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")
def test_compiling_is_asked_of_the_denoiser() -> None:
    whole, blocks = make_pipeline("flux-dev"), make_pipeline("flux-dev")
    accelerate(whole, AccelerationSettings(compile="full"), CPU)
    accelerate(blocks, AccelerationSettings(compile="regional"), CPU)
    assert whole.transformer._compiled_call_impl is not None
    assert blocks.transformer._compiled_call_impl is None
    assert blocks.transformer.transformer_blocks[0]._compiled_call_impl is not None


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
