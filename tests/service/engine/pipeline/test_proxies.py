from typing import Any

import pytest
import torch

from safelight_service.engine.pipeline.prompt_cache import Memo
from safelight_service.engine.pipeline.proxies import DenoiserProxy, TextEncoderProxy, VaeProxy


def run(*args: Any) -> Any:
    raise AssertionError(f"called with {args}")


MODULE = torch.nn.Linear(2, 2)
PROXIES = [
    DenoiserProxy(MODULE, run),
    VaeProxy(MODULE, run),
    TextEncoderProxy(MODULE, "it", Memo(0)),
]


@pytest.mark.parametrize("proxy", PROXIES, ids=lambda proxy: type(proxy).__name__)
def test_a_run_cannot_move_or_cast_the_modules_that_others_use(proxy: Any) -> None:
    assert proxy.to(torch.float16) is proxy
    assert proxy.to("meta", dtype=torch.float64) is proxy
    for name in ("half", "float", "double", "bfloat16", "cpu", "cuda", "eval", "train"):
        assert getattr(proxy, name)() is proxy
    assert proxy.weight.dtype == torch.float32
    assert proxy.weight.device.type == "cpu"


def test_embeddings_are_shared_within_a_scope_only() -> None:
    encoder, lengths = torch.nn.Identity(), list[int]()
    encoder.register_forward_hook(lambda _, args, __: lengths.append(len(args[0])))
    proxy = TextEncoderProxy(encoder, "it", Memo(1000))
    for scope in ("", "one", "two"):
        for _ in range(2):
            proxy.within(scope)(torch.zeros(2))
    assert lengths == [2, 2, 2]


def test_latents_are_decoded_in_the_precision_of_the_vae() -> None:
    class Vae:
        dtype = torch.float32

        def decode(self, latents: torch.Tensor) -> torch.dtype:
            return latents.dtype

    proxy = VaeProxy(Vae(), lambda latents, decode: (latents.dtype, decode()))
    assert proxy.decode(torch.zeros(1, dtype=torch.float16)) == (torch.float32, torch.float32)


def test_a_vae_that_was_cast_seems_not_to_be_until_it_is_cast() -> None:
    """Pipelines read its dtype to decide whether to cast it, and back."""
    vae = torch.nn.Conv2d(1, 1, 1)
    vae.dtype = torch.float32  # type: ignore[assignment]
    proxy = VaeProxy(vae, run, torch.float16)
    assert proxy.dtype == torch.float16
    assert proxy.to(dtype=torch.float32) is proxy
    assert proxy.dtype == torch.float32
