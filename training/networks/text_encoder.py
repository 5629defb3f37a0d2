"""Text encoder: captions to embeddings, trained alone before the denoiser."""

import random

import torch
from diffusers.models.embeddings import TextTimeEmbedding
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

from training.device import best_device
from training.networks.reading import Reader
from training.networks.tokenizer import MAX_TOKENS
from training.scenes.captions import caption
from training.scenes.scene import draw_scene
from training.schedule import Schedule

WIDTH = 128
# Width of the denoiser's timestep embedding, to which the pooled caption is added.
POOLED_WIDTH = 256
POOLING_HEADS = 8
BATCH = 64
PEAK_RATE = 2e-3


def build_text_encoder(tokenizer: PreTrainedTokenizerFast) -> CLIPTextModel:
    """Build an untrained text encoder for this tokenizer."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=3 * WIDTH,
            projection_dim=WIDTH,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=MAX_TOKENS,
            hidden_act="gelu",
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


def build_pooling() -> TextTimeEmbedding:
    """Build the denoiser's pooling of captions, which is trained here and then moved there."""
    return TextTimeEmbedding(WIDTH, POOLED_WIDTH, POOLING_HEADS)


def tokenize(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> Tensor:
    """Return token ids as the pipeline makes them: (batch, MAX_TOKENS), int64."""
    encoded = tokenizer(
        texts, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt"
    )
    numbers: Tensor = encoded.input_ids
    return numbers


def train_text_encoder(
    tokenizer: PreTrainedTokenizerFast, minutes: float, seed: int = 2
) -> tuple[CLIPTextModel, TextTimeEmbedding]:
    """Train encoder and pooling so that a linear layer can read a scene from its pooled caption.

    The denoiser then starts from embeddings that already assign each colour to its shape.
    """
    torch.manual_seed(seed)
    rng = random.Random(seed)
    encoder, pooling = build_text_encoder(tokenizer), build_pooling()
    reader = Reader(POOLED_WIDTH)
    device = best_device()
    modules = nn.ModuleList([encoder, pooling, reader]).to(device)
    optimizer = torch.optim.AdamW(modules.parameters(), PEAK_RATE, weight_decay=1e-2)
    schedule = Schedule(optimizer, PEAK_RATE, minutes)
    for step in schedule.steps():
        captions = [caption(draw_scene(rng, 128, 128, 0.5), rng) for _ in range(BATCH)]
        tokens = tokenize(tokenizer, [item.text for item in captions]).to(device)
        pooled = pooling(encoder(tokens).last_hidden_state)
        loss, right = reader(pooled, captions)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(modules.parameters(), 1.0)
        optimizer.step()
        if step % 100 == 0:
            shares = " ".join(f"{field} {share:.2f}" for field, share in right.items())
            minutes_spent = schedule.spent_s / 60
            print(f"{minutes_spent:5.1f} min  step {step}  loss {loss:.3f}  {shares}", flush=True)
    modules.cpu().eval()
    return encoder, pooling
