"""Parts: the components of a model in a working folder, between the stages of training."""

from pathlib import Path

import torch
from diffusers import AutoencoderTiny, UNet2DConditionModel
from transformers import CLIPTextModel, PreTrainedTokenizerFast

from training.networks.autoencoder import build_autoencoder
from training.networks.denoiser import Training, build_denoiser


class Parts:
    """Paths and components in a working folder.

    Missing components come from `start`, a model folder, if given: this trains a finished
    model further.
    """

    def __init__(self, folder: Path, start: Path | None = None) -> None:
        self.autoencoder_folder = folder / "vae"
        self.tokenizer_folder = folder / "tokenizer"
        self.text_encoder_folder = folder / "text_encoder"
        self.pooling_file = folder / "pooling.pt"
        self.checkpoint = folder / "denoiser.pt"
        self._start = start

    def autoencoder(self) -> AutoencoderTiny:
        """Load the autoencoder, or build it with an untrained decoder."""
        folder = self._latest(self.autoencoder_folder)
        if not folder.exists():
            return build_autoencoder()
        return AutoencoderTiny.from_pretrained(folder, dtype=torch.float32)

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """Load the tokenizer of the text encoder."""
        return PreTrainedTokenizerFast.from_pretrained(self._latest(self.tokenizer_folder))

    def training(self) -> Training:
        """Load the denoiser and the text encoder, in their latest state of training."""
        text_encoder = CLIPTextModel.from_pretrained(
            self._latest(self.text_encoder_folder), dtype=torch.float32
        )
        if self._start is None:
            denoiser = build_denoiser()
            denoiser.add_embedding.load_state_dict(torch.load(self.pooling_file))
        else:
            denoiser = UNet2DConditionModel.from_pretrained(
                self._start / "unet", dtype=torch.float32
            )
        run = Training(text_encoder, denoiser)
        if self.checkpoint.exists():
            run.load(self.checkpoint)
        return run

    def _latest(self, folder: Path) -> Path:
        if folder.exists() or self._start is None:
            return folder
        return self._start / folder.name
