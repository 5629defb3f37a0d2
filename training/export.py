"""Export: trained parts as an ordinary pipeline folder, in half precision."""

import json
import shutil
import tempfile
from pathlib import Path

from diffusers import AutoencoderTiny, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextModel, PreTrainedTokenizerFast

from training.networks.scheduler import build_scheduler

MAX_BYTES = 15_000_000


def export(
    folder: Path,
    tokenizer: PreTrainedTokenizerFast,
    text_encoder: CLIPTextModel,
    autoencoder: AutoencoderTiny,
    denoiser: UNet2DConditionModel,
) -> None:
    """Replace a model folder, but keep its README.md.

    Writes a new folder and renames it, so that a reader never finds half a model.

    Raises:
        ValueError: the model is larger than MAX_BYTES.
    """
    pipeline = StableDiffusionPipeline(
        vae=autoencoder.half(),
        text_encoder=text_encoder.half(),
        tokenizer=tokenizer,
        unet=denoiser.half(),
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".export-") as aside:
        fresh = Path(aside) / "fresh"
        pipeline.save_pretrained(fresh, safe_serialization=True)
        _tidy(fresh)
        if (folder / "README.md").exists():
            shutil.copy2(folder / "README.md", fresh / "README.md")
        size = sum(path.stat().st_size for path in fresh.rglob("*") if path.is_file())
        if size > MAX_BYTES:
            raise ValueError(f"a model must have at most {MAX_BYTES} bytes, not {size}")
        if folder.exists():
            folder.rename(Path(aside) / "old")
        fresh.rename(folder)


def _tidy(folder: Path) -> None:
    """Drop entries that loading warns about, and write a tokenizer class of all transformers."""
    for path in folder.rglob("*.json"):
        text = path.read_text().replace("TokenizersBackend", "PreTrainedTokenizerFast")
        content = json.loads(text)
        for origin in ("_name_or_path", "is_local", "local_files_only"):
            content.pop(origin, None)
        if path.parent.name == "vae":
            # AutoencoderTiny writes this copy of decoder_block_out_channels but does not accept it.
            content.pop("block_out_channels", None)
        if path.parent.name == "text_encoder":
            # The precision that it loads in unasked, which must be that of the other parts.
            content["dtype"] = "float32"
        path.write_text(json.dumps(content, indent=2) + "\n")
    for path in folder.rglob("*.safetensors"):
        # save_pretrained makes it readable for the owner only; a service may run as another user.
        path.chmod(0o644)
