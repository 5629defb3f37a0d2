from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn.functional import avg_pool2d, interpolate

from safelight_service.engine.models.loading import load_model
from safelight_service.engine.pipeline.preview import LatentColours, unpack
from safelight_service.settings import EMBEDDED_MODEL, ModelSettings
from support.engine.tiny_models import TinyModels
from support.pipelines.families import FAMILIES, make_pipeline


class LinearAutoencoder:
    """Autoencoder that maps the mean colour of each 8 x 8 cell linearly."""

    encoder, device, dtype = "linear", torch.device("cpu"), torch.float32

    def __init__(self, **config: Any) -> None:
        self.config = config
        generator = torch.Generator().manual_seed(0)
        self._map = torch.randn(4, 3, generator=generator)

    def encode(self, pixels: torch.Tensor) -> Any:
        """Encode pixels (batch, 3, height, width)."""
        cells = avg_pool2d(pixels, 8)
        return SimpleNamespace(latents=torch.einsum("lc,bchw->blhw", self._map, cells) + 0.3)


@pytest.mark.parametrize(
    "config",
    [
        {"scaling_factor": 0.2, "shift_factor": 0.1},
        {"latents_mean": [0.1] * 4, "latents_std": [3.0] * 4},
    ],
    ids=["scaled and shifted", "normalised by channel"],
)
def test_preview_of_a_linear_autoencoder_has_the_right_colours(config: dict[str, Any]) -> None:
    vae = LinearAutoencoder(**config)
    colours = LatentColours.fit(SimpleNamespace(vae=vae, vae_scale_factor=8))
    assert colours is not None
    wanted = torch.rand(1, 3, 4, 6, generator=torch.Generator().manual_seed(1)) * 2 - 1
    latents = vae.encode(interpolate(wanted, scale_factor=8)).latents
    latents = (latents - 0.1) / 3.0 if "latents_mean" in config else (latents - 0.1) * 0.2
    picture = colours.draw(latents)
    assert picture is not None
    assert picture.shape == (3, 4, 6)
    assert (picture * 2 - 1 - wanted[0]).abs().max() < 0.1


def test_latents_of_another_layout_give_no_preview() -> None:
    colours = LatentColours(torch.zeros(5, 3))
    assert colours.draw(torch.zeros(1, 4, 2, 2)) is not None
    assert colours.draw(torch.zeros(1, 8, 2, 2)) is None
    assert colours.draw(torch.zeros(1, 6, 4)) is None


def test_autoencoder_without_an_encoder_gives_no_previews() -> None:
    vae = SimpleNamespace(encoder=None)
    assert LatentColours.fit(SimpleNamespace(vae=vae, vae_scale_factor=8)) is None


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_previews(tiny_models: TinyModels, family: str) -> None:
    assert tiny_models[family].capabilities.has_previews


@pytest.mark.parametrize("family", ["flux-dev", "qwen-image"])
def test_packed_latents_are_unpacked_to_rows_and_columns(
    tiny_models: TinyModels, family: str
) -> None:
    pipeline = tiny_models[family].adapter.pipeline
    channels = pipeline.transformer.config.in_channels // 4
    cells = torch.randn(1, channels, 8, 12)
    packed = pipeline._pack_latents(cells, 1, channels, 8, 12)
    assert torch.equal(unpack(pipeline, packed, width=96, height=64), cells)


@pytest.mark.parametrize("family", ["flux2-dev", "flux2-klein"])
def test_normalised_patches_are_unpacked_to_what_the_autoencoder_takes(family: str) -> None:
    pipeline: Any = make_pipeline(family)
    statistics = pipeline.vae.bn
    statistics.running_mean.uniform_(-1, 1)
    statistics.running_var.uniform_(0.5, 4)
    cells = torch.randn(1, 32, 8, 12)
    patches = pipeline._patchify_latents(cells).movedim(1, -1)
    spread = (statistics.running_var + pipeline.vae.config.batch_norm_eps).sqrt()
    normalised = ((patches - statistics.running_mean) / spread).movedim(-1, 1)
    packed = pipeline._pack_latents(normalised)
    assert torch.allclose(unpack(pipeline, packed, width=96, height=64), cells, atol=1e-5)


def test_picture_is_drawn_in_rows_from_the_top() -> None:
    weight = torch.zeros(4, 3)
    weight[:3] = torch.eye(3)
    latents = torch.full((1, 3, 2, 3), -1.0)
    latents[0, 0, 0, 2] = 1.0
    picture = LatentColours(weight).draw(latents)
    assert picture is not None
    assert picture[:, 0, 2].tolist() == [1, 0, 0]
    assert picture[:, 1, 0].tolist() == [0, 0, 0]


def test_preview_of_the_embedded_model_looks_like_the_picture() -> None:
    model = load_model(ModelSettings(name="shapes", source=EMBEDDED_MODEL, device="cpu"))
    pipeline, colours = model.adapter.pipeline, model.latent_colours
    assert colours is not None
    wanted = torch.tensor([[-0.8, -0.6, 0.4], [0.8, 0.2, -0.6]]).T  # a blue and an orange half
    halves = wanted.reshape(1, 3, 1, 2).repeat_interleave(64, dim=3).repeat(1, 1, 128, 1)
    with torch.no_grad():
        latents = pipeline.vae.encode(halves).latents
    picture = colours.draw(latents)
    assert picture is not None
    left, right = (picture * 2 - 1).mean(dim=1)[:, [3, 12]].T
    assert (left - wanted[:, 0]).abs().max() < 0.25
    assert (right - wanted[:, 1]).abs().max() < 0.25
