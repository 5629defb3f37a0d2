"""Encoders: time of well-known text encoders for a prompt, at their real sizes."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

from benchmarks.gpu.measurements import timing
from benchmarks.gpu.measurements.timing import ms
from benchmarks.gpu.recorder import Recorder
from benchmarks.gpu.session import Session

_SHRINK = 16
_VOCABULARY = 1000
"""Number of words, which does not affect the speed."""


def measure(session: Session, recorder: Recorder) -> None:
    """Time CLIP-L and CLIP-G with 77 tokens, and T5-XXL with 512."""
    shrink = _SHRINK if session.is_rehearsal else 1
    encoders: dict[str, tuple[int, Callable[[], Any]]] = {
        "CLIP-L": (77, lambda: _make_clip(768 // shrink, 12)),
        "CLIP-G": (77, lambda: _make_clip(1280 // shrink, 32 // shrink)),
        "T5-XXL": (512, lambda: _make_t5(4096 // shrink, 24 // shrink)),
    }
    if not session.is_rehearsal:
        torch.set_default_dtype(torch.bfloat16)
    for name, (token_count, make) in encoders.items():
        with (
            recorder.figure("encoder", encoder=name, tokens=token_count) as figure,
            torch.no_grad(),
            torch.device(session.device),
        ):
            encoder = make().eval()
            tokens = torch.ones(1, token_count, dtype=torch.long)
            timed = timing.measure(session, functools.partial(encoder, tokens))
            figure["encode_ms"] = ms(timed.median_s)
            figure["launch_ms"] = ms(timed.launch_s)


def _make_clip(width: int, layers: int) -> Any:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=_VOCABULARY,
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=layers,
            num_attention_heads=max(1, width // 64),
        )
    )


def _make_t5(width: int, layers: int) -> Any:
    return T5EncoderModel(
        T5Config(
            vocab_size=_VOCABULARY,
            d_model=width,
            d_kv=64,
            d_ff=10240 * width // 4096,
            num_layers=layers,
            num_heads=max(1, width // 64),
            feed_forward_proj="gated-gelu",
        )
    )
