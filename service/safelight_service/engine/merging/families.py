"""Families: collation rules by the name of the pipeline's class.

Arguments of the denoiser that a rule does not name must be equal: sizes, positions of patches and
tokens, options. Pipelines without a rule are served one image at a time. Leave out those whose
attention mixes the rows of a batch (perturbed attention guidance). Leave out those whose denoiser
remembers earlier forwards (key and value caches).
"""

from collections.abc import Mapping

from safelight_service.engine.merging.collation import (
    EQUAL_ITEMS,
    ITEMS,
    ROWS,
    ROWS_BY_NAME,
    TEXT,
    TIMESTEP,
    CollationRule,
    rows,
    text_mask,
)

_UNET: CollationRule = {
    "sample": ROWS,
    "timestep": TIMESTEP,
    "encoder_hidden_states": ROWS,
    "timestep_cond": ROWS,
    "added_cond_kwargs": ROWS_BY_NAME,
}
# Arguments of these names have a row for each image in all transformers.
_TRANSFORMER: CollationRule = {
    "hidden_states": ROWS,
    "timestep": TIMESTEP,
    "encoder_hidden_states": ROWS,
    "guidance": ROWS,
}
_POOLED = {**_TRANSFORMER, "pooled_projections": ROWS}
_PIXART = {**_TRANSFORMER, "encoder_attention_mask": ROWS, "added_cond_kwargs": ROWS_BY_NAME}

ROWLESS: Mapping[str, tuple[str, ...]] = {
    "HiDreamImagePipeline": ("ff_i",),
    "ZImagePipeline": ("all_x_embedder", "cap_embedder"),
}
"""Parts of the names of layers that do not see a row for each image, but all their tokens in
one. Images whose adapters change them are merged only with those of the same adapters."""

UNRECORDABLE: Mapping[str, str] = {
    "ChromaPipeline": "its forward copies constants from the host",
    "CogView4Pipeline": "its texts come in many lengths",
    "HiDreamImagePipeline": "its forward reads the choice of its experts on the host",
    "Lumina2Pipeline": "its forward reads the lengths of its texts on the host",
}
"""Reasons against CUDA graphs that the rules themselves do not show."""

RULES: Mapping[str, CollationRule] = {
    "StableDiffusionPipeline": _UNET,
    "LatentConsistencyModelPipeline": _UNET,
    "StableDiffusionXLPipeline": _UNET,
    "StableDiffusion3Pipeline": _POOLED,
    "FluxPipeline": _POOLED,
    "Flux2Pipeline": _TRANSFORMER,
    "Flux2KleinPipeline": _TRANSFORMER,
    "ChromaPipeline": {**_TRANSFORMER, "attention_mask": ROWS},
    "QwenImagePipeline": {
        **_TRANSFORMER,
        "encoder_hidden_states": TEXT,
        "encoder_hidden_states_mask": text_mask("encoder_hidden_states"),
        "img_shapes": EQUAL_ITEMS,
    },
    "ZImagePipeline": {"x": ITEMS, "t": TIMESTEP, "cap_feats": ITEMS},
    "PixArtAlphaPipeline": _PIXART,
    "PixArtSigmaPipeline": _PIXART,
    "SanaPipeline": {**_TRANSFORMER, "encoder_attention_mask": ROWS},
    "Lumina2Pipeline": {**_TRANSFORMER, "encoder_attention_mask": ROWS},
    "AuraFlowPipeline": _TRANSFORMER,
    # Its texts must be equally long: the mask of CogView4 does not fully hide the padding.
    "CogView4Pipeline": {
        **_TRANSFORMER,
        "original_size": ROWS,
        "target_size": ROWS,
        "crop_coords": ROWS,
    },
    "HiDreamImagePipeline": {
        "hidden_states": ROWS,
        "timesteps": TIMESTEP,
        "encoder_hidden_states_t5": ROWS,
        "encoder_hidden_states_llama3": rows(dim=1),  # (layers, rows, tokens, width)
        "pooled_embeds": ROWS,
    },
    "HunyuanDiTPipeline": {
        **_TRANSFORMER,
        "text_embedding_mask": ROWS,
        "encoder_hidden_states_t5": ROWS,
        "text_embedding_mask_t5": ROWS,
        "image_meta_size": ROWS,
        "style": ROWS,
    },
}
