"""Text encoders with one or two small layers, one of each class that pipelines use."""

from typing import Any

from transformers import (
    BertConfig,
    BertModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    Gemma2Config,
    Gemma2Model,
    GlmConfig,
    GlmModel,
    LlamaConfig,
    LlamaForCausalLM,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
    T5Config,
    T5EncoderModel,
    UMT5Config,
    UMT5EncoderModel,
)

TEXT_WIDTH = 16
"""Width of the hidden states of all encoders."""

_SIZES: dict[str, Any] = {
    "hidden_size": TEXT_WIDTH,
    "intermediate_size": 2 * TEXT_WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
_CAUSAL_SIZES = {**_SIZES, "num_key_value_heads": 1, "initializer_range": 0.2}
_T5_SIZES: dict[str, Any] = {"d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}


def make_clip_encoder(tokenizer: Any) -> CLIPTextModel:
    """Make the encoder of SD 1.5 and LCM, and the first of SDXL and FLUX."""
    return CLIPTextModel(_make_clip_config(tokenizer)).eval()


def make_clip_projection_encoder(tokenizer: Any) -> CLIPTextModelWithProjection:
    """Make the encoder with a pooled projection of SDXL, SD3 and HiDream."""
    return CLIPTextModelWithProjection(_make_clip_config(tokenizer)).eval()


def make_bert_encoder(tokenizer: Any) -> BertModel:
    """Make Hunyuan-DiT's first encoder."""
    config = BertConfig(vocab_size=len(tokenizer), initializer_range=0.2, **_SIZES)
    return BertModel(config).eval()


def make_t5_encoder(tokenizer: Any, width: int = TEXT_WIDTH) -> T5EncoderModel:
    """Make the encoder of SD3, FLUX, PixArt, Chroma, HiDream and Hunyuan-DiT."""
    config = T5Config(vocab_size=len(tokenizer), d_model=width, **_T5_SIZES)
    return T5EncoderModel(config).eval()


def make_umt5_encoder(tokenizer: Any) -> UMT5EncoderModel:
    """Make AuraFlow's encoder."""
    config = UMT5Config(vocab_size=len(tokenizer), d_model=TEXT_WIDTH, **_T5_SIZES)
    return UMT5EncoderModel(config).eval()


def make_gemma_encoder(tokenizer: Any) -> Gemma2Model:
    """Make the encoder of Sana and Lumina."""
    config = Gemma2Config(
        vocab_size=len(tokenizer),
        head_dim=8,
        query_pre_attn_scalar=8,
        attn_logit_softcapping=None,  # would take twice as long on Sana's long instruction
        **_CAUSAL_SIZES,
    )
    return Gemma2Model(config).eval()


def make_qwen_vl_encoder(tokenizer: Any) -> Qwen2_5_VLForConditionalGeneration:
    """Make Qwen-Image's encoder, with an unused vision part."""
    config = Qwen2_5_VLConfig(
        text_config={
            **_CAUSAL_SIZES,
            "vocab_size": len(tokenizer),
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
            "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2]},
        },
        vision_config={
            "depth": 1,
            "hidden_size": TEXT_WIDTH,
            "intermediate_size": TEXT_WIDTH,
            "num_heads": 2,
            "out_hidden_size": TEXT_WIDTH,
        },
    )
    return Qwen2_5_VLForConditionalGeneration(config).eval()


def make_mistral3_encoder(tokenizer: Any) -> Mistral3ForConditionalGeneration:
    """Make FLUX.2-dev's encoder; the pipeline reads its 10th, 20th and 30th layers."""
    config = Mistral3Config(
        text_config={
            **_CAUSAL_SIZES,
            "model_type": "mistral",
            "vocab_size": len(tokenizer),
            "head_dim": 8,
            "num_hidden_layers": 30,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
        },
        vision_config={
            "model_type": "pixtral",
            "hidden_size": TEXT_WIDTH,
            "intermediate_size": TEXT_WIDTH,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
        },
        image_token_index=tokenizer.convert_tokens_to_ids("[IMG]"),
    )
    return Mistral3ForConditionalGeneration(config).eval()


def make_qwen3_encoder(tokenizer: Any) -> Qwen3Model:
    """Make Z-Image's encoder."""
    config = Qwen3Config(vocab_size=len(tokenizer), head_dim=8, **_CAUSAL_SIZES)
    return Qwen3Model(config).eval()


def make_deep_qwen3_encoder(tokenizer: Any) -> Qwen3ForCausalLM:
    """Make FLUX.2-klein's encoder; the pipeline reads its 9th, 18th and 27th layers."""
    sizes = {**_CAUSAL_SIZES, "num_hidden_layers": 27}
    config = Qwen3Config(vocab_size=len(tokenizer), head_dim=8, **sizes)
    return Qwen3ForCausalLM(config).eval()


def make_glm_encoder(tokenizer: Any) -> GlmModel:
    """Make CogView4's encoder."""
    config = GlmConfig(
        vocab_size=len(tokenizer),
        head_dim=8,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **_CAUSAL_SIZES,
    )
    return GlmModel(config).eval()


def make_llama_encoder(tokenizer: Any) -> LlamaForCausalLM:
    """Make HiDream's fourth encoder."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **_CAUSAL_SIZES,
    )
    return LlamaForCausalLM(config).eval()


def _make_clip_config(tokenizer: Any) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        projection_dim=TEXT_WIDTH,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_factor=10.0,
        **_SIZES,
    )
