"""PEFT: files that diffusers writes have the effect that diffusers itself gives them."""

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline

from safelight_service.engine.lora.lora import Lora, Mixture
from safelight_service.engine.lora.reading import read_lora
from safelight_service.engine.models.digests import FileDigests
from safelight_service.engine.models.loaded_model import LoadedModel
from safelight_service.settings import AdapterSettings
from support.engine.job_runs import Recorder, make_job
from support.engine.tiny_models import TinyModels, reload
from tests.service.engine.merging.test_merged_latents import TOLERANCE, run_to_latents

pytestmark = pytest.mark.peft

FAMILIES = ("sd15", "sdxl", "sd3", "flux-dev", "qwen-image", "z-image")
SHORT: dict[str, Any] = {"num_inference_steps": 2, "height": 64}
SCALES = (0.7, -0.4)

OPTIONS: dict[str, dict[str, Any]] = {
    "patterns": {
        "r": 4,
        "lora_alpha": 2,
        "rank_pattern": {"to_q": 3, "q_proj": 2},
        "alpha_pattern": {"to_v": 8, "v_proj": 3},
    },
    "rslora": {"r": 4, "lora_alpha": 4, "use_rslora": True},
    "dora": {"r": 2, "lora_alpha": 2, "use_dora": True},
}


def load_pipeline(tiny_models: TinyModels, family: str) -> Any:
    pipeline = DiffusionPipeline.from_pretrained(tiny_models.folder(family))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def write(pipeline: Any, folder: Path, seed: int, options: dict[str, Any]) -> None:
    """Let PEFT make a random adapter of a pipeline, and diffusers write it."""
    peft: Any = importlib.import_module("peft")
    torch.manual_seed(seed)
    layers, metadata = {}, {}
    for name, module in pipeline.components.items():
        # transformers loses the magnitudes of text encoders when it loads them.
        is_text = name.startswith("text_encoder") and "use_dora" not in options
        if name not in ("unet", "transformer") and not (is_text and "CLIP" in str(type(module))):
            continue
        module.add_adapter(
            peft.LoraConfig(target_modules=list_layers(module), init_lora_weights=False, **options)
        )
        for tensor_name, tensor in module.named_parameters():
            if "lora_magnitude" in tensor_name:
                tensor.data *= 0.8 + 0.4 * torch.rand_like(tensor)
            elif "lora_B" in tensor_name:
                tensor.data = 0.1 * torch.randn_like(tensor)
        layers[f"{name}_lora_layers"] = peft.get_peft_model_state_dict(module)
        metadata[f"{name}_lora_adapter_metadata"] = module.peft_config["default"].to_dict()
    pipeline.save_lora_weights(folder, **layers, **metadata)


def read(folder: Path, model: LoadedModel) -> Lora:
    settings = AdapterSettings(name=folder.name, source=str(folder))
    adapter = model.adapter
    return read_lora(settings, Path(), adapter.pipeline, adapter.execution_device, FileDigests())


@pytest.mark.parametrize(
    ("family", "options"),
    [
        *((family, "patterns") for family in FAMILIES),
        ("sdxl", "rslora"),
        ("sd15", "dora"),
        ("flux-dev", "dora"),
    ],
)
def test_two_adapters_have_the_effect_that_diffusers_gives_them(
    tiny_models: TinyModels, tmp_path: Path, family: str, options: str
) -> None:
    folders = [tmp_path / "first", tmp_path / "second"]
    for seed, folder in enumerate(folders):
        kind = OPTIONS[options] if seed == 0 else {"r": 3, "lora_alpha": 6}
        write(load_pipeline(tiny_models, family), folder, seed, kind)
    reference = load_pipeline(tiny_models, family)
    for folder in folders:
        reference.load_lora_weights(folder, adapter_name=folder.name)
    reference.set_adapters([folder.name for folder in folders], list(SCALES))
    model = tiny_models[family]
    loras = [read(folder, model) for folder in folders]
    mixture = Mixture(tuple(zip(loras, SCALES, strict=True)))
    [plain] = run_to_latents([make_job(model, Recorder(), **SHORT)])
    [found] = run_to_latents([make_job(model, Recorder(), mixture=mixture, **SHORT)])
    [expected] = run_to_latents([make_job(reload(reference), Recorder(), **SHORT)])
    assert (found - expected).abs().max() <= TOLERANCE * expected.abs().max()
    assert (found - plain).abs().max() > 100 * TOLERANCE * plain.abs().max()


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("sd15", {"r": 2, "alpha": 3}),
        ("sd15", {"r": 64, "alpha": 64, "use_effective_conv2d": False}),
        ("z-image", {"r": 2, "alpha": 4, "decompose_both": True, "rank_pattern": {"to_q": 1}}),
    ],
)
def test_a_lokr_has_the_effect_that_peft_gives_it(
    tiny_models: TinyModels, tmp_path: Path, family: str, options: dict[str, Any]
) -> None:
    peft: Any = importlib.import_module("peft")
    reference, model = load_pipeline(tiny_models, family), tiny_models[family]
    denoiser = getattr(reference, model.adapter.denoiser_name)
    torch.manual_seed(0)
    config = peft.LoKrConfig(target_modules=list_layers(denoiser), init_weights=False, **options)
    peft.get_peft_model(denoiser, config).save_pretrained(tmp_path)
    mixture = Mixture(((read(tmp_path, model), 1.0),))
    [plain] = run_to_latents([make_job(model, Recorder(), **SHORT)])
    [found] = run_to_latents([make_job(model, Recorder(), mixture=mixture, **SHORT)])
    [expected] = run_to_latents([make_job(reload(reference), Recorder(), **SHORT)])
    assert (found - expected).abs().max() <= TOLERANCE * expected.abs().max()
    assert (found - plain).abs().max() > 100 * TOLERANCE * plain.abs().max()


def list_layers(module: torch.nn.Module) -> list[str]:
    return [
        layer
        for layer, each in module.named_modules()
        if isinstance(each, torch.nn.Linear | torch.nn.Conv2d)
    ]
