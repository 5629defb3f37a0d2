"""Parts: further training of a finished model."""

from pathlib import Path

import torch
from diffusers import UNet2DConditionModel

import safelight_service
from training.export import export
from training.parts import Parts

MODEL = Path(safelight_service.__file__).parent / "models" / "shapes"


def test_training_starts_from_the_weights_of_a_model_folder(tmp_path: Path) -> None:
    run = Parts(tmp_path, start=MODEL).training()
    shipped = UNet2DConditionModel.from_pretrained(MODEL / "unet", dtype=torch.float32)
    for name, weight in shipped.state_dict().items():
        assert torch.equal(run.model["denoiser"].state_dict()[name], weight)
    assert run.step == 0


def test_a_model_that_is_not_trained_further_is_exported_as_it_was(tmp_path: Path) -> None:
    parts = Parts(tmp_path / "work", start=MODEL)
    average = parts.training().average
    export(
        tmp_path / "model",
        parts.tokenizer(),
        average["text_encoder"],
        parts.autoencoder(),
        average["denoiser"],
    )
    for path in MODEL.rglob("*"):
        is_written = path.name != "README.md" and path.parent.name != "adapters"
        if path.is_file() and is_written:
            assert (tmp_path / "model" / path.relative_to(MODEL)).read_bytes() == path.read_bytes()
