"""Folders as the Hub has them: each is loaded, or refused with what helps."""

import json
import math
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from sentencepiece import sentencepiece_model_pb2
from transformers import ByT5Tokenizer

from safelight_service.engine.folders.completeness import check_completeness
from safelight_service.engine.folders.components import Component
from safelight_service.engine.folders.errors import ModelFolderError, UnsafeModelError
from support.engine.job_runs import draw
from support.engine.tiny_models import DEFAULTS, TinyModels
from support.pipelines.families import make_pipeline
from support.pipelines.safety_checkers import make_checked_pipeline
from tests.service.engine.folders.loopback_hub import COMMIT, REPOSITORY, LoopbackHub
from tests.service.engine.folders.snapshot import Snapshot

UNET = "unet/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"
INDEX = "model_index.json"
DEEP = "[" * 100_000
LFS_POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"

Change = Callable[[Snapshot], object]


def copy_of(tiny_models: TinyModels, family: str, folder: Path) -> Snapshot:
    shutil.copytree(tiny_models.folder(family), folder / family)
    return Snapshot(folder / family, folder / "canary")


def change_weights(
    snapshot: Snapshot, name: str, change: Callable[[dict[str, torch.Tensor]], Any]
) -> None:
    """Write the weights that `change` returns, or those that it changed in place."""
    weights = load_file(snapshot.folder / name)
    changed = change(weights)
    save_file(
        changed if isinstance(changed, dict) else weights, snapshot.folder / name, {"format": "pt"}
    )


def keep_the_fp16_variant_only(snapshot: Snapshot) -> None:
    for name in list(snapshot.folder.rglob("*.safetensors")):
        name.rename(name.with_suffix(".fp16.safetensors"))


def shard(snapshot: Snapshot, **options: Any) -> None:
    snapshot.remove("")
    make_pipeline("sd15").save_pretrained(snapshot.folder, max_shard_size="40KB", **options)


def keep_a_slow_tokenizer(snapshot: Snapshot) -> None:
    folder = snapshot.folder / "tokenizer"
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    added = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    (folder / "vocab.json").write_text(json.dumps(tokenizer["model"]["vocab"] | added))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    snapshot.remove("tokenizer/tokenizer.json")


def write_byte_order_marks(snapshot: Snapshot) -> None:
    for path in snapshot.folder.rglob("*.json"):
        path.write_text(path.read_text(), encoding="utf-8-sig")


def link_to_blobs(snapshot: Snapshot) -> None:
    """Lay the folder out as the Hub's cache does."""
    blobs = snapshot.folder.parent / "blobs"
    blobs.mkdir()
    for number, path in enumerate(list(snapshot.folder.rglob("*.*"))):
        path.rename(blobs / str(number))
        path.symlink_to(os.path.relpath(blobs / str(number), path.parent))


def grow_old(snapshot: Snapshot) -> None:
    """Write it as diffusers 0.2 and transformers 4.22 did."""

    def forget(index: dict[str, Any]) -> None:
        for name in ("image_encoder", "requires_safety_checker"):
            index.pop(name, None)
        index["feature_extractor"] = ["transformers", "CLIPFeatureExtractor"]

    snapshot.edit_json(INDEX, forget)
    (snapshot.folder / "feature_extractor").mkdir()
    config = {"feature_extractor_type": "CLIPFeatureExtractor", "crop_size": 224, "size": 224}
    (snapshot.folder / "feature_extractor" / "preprocessor_config.json").write_text(
        json.dumps(config)
    )
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def rename(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        pattern = re.compile("|".join(names))
        return {pattern.sub(lambda name: names[name[0]], key): weights[key] for key in weights}

    change_weights(snapshot, VAE, rename)
    prefix = "text_model."
    positions = {f"{prefix}embeddings.position_ids": torch.arange(77)[None]}
    change_weights(
        snapshot,
        "text_encoder/model.safetensors",
        lambda weights: {prefix + key: weights[key] for key in weights} | positions,
    )


def add_files_without_a_suffix(snapshot: Snapshot) -> None:
    keep_the_fp16_variant_only(snapshot)
    (snapshot.folder / "unet" / "LICENSE").touch()
    (snapshot.folder / "unet" / ".gitattributes").touch()


def name_a_component_of_another_pipeline(snapshot: Snapshot) -> None:
    snapshot.rename_component("movq", "diffusers", "VQModel")


def forget_the_longest_prompt(snapshot: Snapshot) -> None:
    snapshot.edit_json(
        "tokenizer/tokenizer_config.json", lambda config: config.pop("model_max_length")
    )


def promise_a_longer_prompt(snapshot: Snapshot) -> None:
    snapshot.edit_json(
        "tokenizer/tokenizer_config.json", lambda config: config.update(model_max_length=512)
    )


def link_in_circles(snapshot: Snapshot) -> None:
    """Two links to the folder itself: following both doubles the files at each of 40 levels."""
    for name in ("unet/a", "unet/b", "c"):
        (snapshot.folder / name).symlink_to(snapshot.folder)


LOADED: dict[str, tuple[Change, dict[str, Any]]] = {
    "weights of one variant": (keep_the_fp16_variant_only, {"variant": "fp16"}),
    "files without a suffix": (add_files_without_a_suffix, {"variant": "fp16"}),
    "shards": (shard, {}),
    "shards of a variant": (
        lambda snapshot: shard(snapshot, variant="fp16"),
        {"variant": "fp16"},
    ),
    "a slow tokenizer": (keep_a_slow_tokenizer, {}),
    "byte order marks": (write_byte_order_marks, {}),
    "links into the cache": (link_to_blobs, {}),
    "old names": (grow_old, {}),
    "a tokenizer without a limit": (forget_the_longest_prompt, {}),
    "a tokenizer with another limit": (promise_a_longer_prompt, {}),
    "links in circles": (link_in_circles, {}),
    "a name too many": (name_a_component_of_another_pipeline, {}),
}


@pytest.mark.parametrize("name", LOADED)
def test_a_folder_in_another_form_gives_the_same_pictures(
    name: str, snapshot: Snapshot, tiny_models: TinyModels
) -> None:
    change, settings = LOADED[name]
    change(snapshot)
    assert draw(snapshot.load(**settings)) == draw(tiny_models["sd15"])


def write_sentencepiece(folder: Path) -> None:
    """Replace a T5 tokenizer's tokenizer.json by the spiece.model that it was made of."""
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    model: Any = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    model.trainer_spec.model_type = model.trainer_spec.UNIGRAM
    model.trainer_spec.pad_id, model.trainer_spec.eos_id = 0, 1
    model.trainer_spec.unk_id, model.trainer_spec.bos_id = 2, -1
    kinds = {"<pad>": 3, "</s>": 3, "<unk>": 2}
    for piece, score in vocabulary:
        model.pieces.add(piece=piece, score=score, type=kinds.get(piece, 1))
    (folder / "spiece.model").write_bytes(model.SerializeToString())
    (folder / "tokenizer.json").unlink()


def write_word_pieces(folder: Path) -> None:
    """Replace a BERT tokenizer's tokenizer.json by the vocab.txt that it was made of."""
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    (folder / "vocab.txt").write_text("\n".join(sorted(vocabulary, key=vocabulary.get)))
    (folder / "tokenizer.json").unlink()


@pytest.mark.parametrize(
    ("family", "tokenizer", "class_name"),
    [
        ("pixart-sigma", "tokenizer", "T5Tokenizer"),
        ("chroma", "tokenizer", "T5TokenizerFast"),
        ("hunyuan-dit", "tokenizer_2", "MT5Tokenizer"),
    ],
)
def test_a_t5_tokenizer_of_sentencepiece_alone_reads_as_before(
    family: str, tokenizer: str, class_name: str, tiny_models: TinyModels, tmp_path: Path
) -> None:
    snapshot = copy_of(tiny_models, family, tmp_path)
    write_sentencepiece(snapshot.folder / tokenizer)
    snapshot.rename_component(tokenizer, "transformers", class_name)
    if tokenizer == "tokenizer_2":
        write_word_pieces(snapshot.folder / "tokenizer")
    loaded, model = snapshot.load(), tiny_models[family]
    prompt = "a Red circle,  on <grass>"
    assert loaded.adapter.count_tokens(prompt) == model.adapter.count_tokens(prompt)
    limits = loaded.capabilities.limits
    assert limits.max_prompt_token_count == model.capabilities.limits.max_prompt_token_count
    assert draw(loaded) == draw(model)


@pytest.mark.parametrize(
    ("nulls", "components"),
    [
        (("text_encoder_3", "tokenizer_3"), {}),
        (("text_encoder_3",), {}),
        ((), {"text_encoder_3": False, "tokenizer_3": False}),
        ((), {"text_encoder_3": False}),
    ],
)
def test_sd3_without_its_t5_reads_as_many_tokens_as_its_other_encoders(
    nulls: tuple[str, ...], components: dict[str, bool], tiny_models: TinyModels, tmp_path: Path
) -> None:
    snapshot = copy_of(tiny_models, "sd3", tmp_path)
    for name in nulls:
        snapshot.remove(name)
    snapshot.edit_json(INDEX, lambda index: index.update({key: [None, None] for key in nulls}))
    loaded = snapshot.load(components=components)
    assert loaded.adapter.pipeline.text_encoder_3 is None
    assert loaded.capabilities.limits.max_prompt_token_count == 77
    assert tiny_models["sd3"].capabilities.limits.max_prompt_token_count == 256
    assert draw(loaded) != draw(tiny_models["sd3"])


def name_no_folder(snapshot: Snapshot) -> None:
    snapshot.folder = snapshot.folder / "nowhere"


def name_a_single_file(snapshot: Snapshot) -> None:
    snapshot.folder = snapshot.folder / UNET


def name_the_cache(snapshot: Snapshot) -> None:
    shutil.move(snapshot.folder, snapshot.folder.parent / "snapshots" / COMMIT)
    snapshot.folder = snapshot.folder.parent


def cut(snapshot: Snapshot) -> None:
    with (snapshot.folder / UNET).open("r+b") as file:
        file.truncate(1_000_000 if (snapshot.folder / UNET).stat().st_size > 1_000_000 else 20_000)


def lose_a_shard(snapshot: Snapshot) -> None:
    shard(snapshot)
    next((snapshot.folder / "unet").glob("*-00001-of-*")).unlink()


def ask_for_bitsandbytes(snapshot: Snapshot) -> None:
    quantization = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    snapshot.edit_json(
        "unet/config.json", lambda config: config.update(quantization_config=quantization)
    )


def break_a_link(snapshot: Snapshot) -> None:
    snapshot.remove("unet/config.json")
    (snapshot.folder / "unet" / "config.json").symlink_to("../../blobs/1")


def write_text(name: str, text: str) -> Change:
    return lambda snapshot: (snapshot.folder / name).write_text(text)


def write_pipe(name: str) -> Change:
    def write(snapshot: Snapshot) -> None:
        (snapshot.folder / name).unlink(missing_ok=True)
        os.mkfifo(snapshot.folder / name)

    return write


def set_json(name: str, **values: Any) -> Change:
    return lambda snapshot: snapshot.edit_json(name, lambda content: content.update(values))


def shrink(name: str, key: str) -> Change:
    """Keep one row of a weight."""
    return lambda snapshot: change_weights(
        snapshot, name, lambda weights: weights | {key: weights[key][:1].contiguous()}
    )


def set_end_of_weights(end: object) -> Change:
    """Let the header of the weights name another end of its first tensor."""

    def write(snapshot: Snapshot) -> None:
        header = json.dumps({"a": {"dtype": "F32", "shape": [], "data_offsets": [0, end]}}).encode()
        data = len(header).to_bytes(8, "little") + header + b"1234"
        (snapshot.folder / UNET).write_bytes(data)

    return write


def quantize(dtype: torch.dtype, **scales: float) -> Change:
    """Store the weights as another dtype, and scales beside them, with no word of it elsewhere."""

    def change(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        small = {
            name: tensor.to(dtype) if name.endswith("weight") else tensor
            for name, tensor in weights.items()
        }
        added = {f"conv_in.{name}": torch.tensor(value) for name, value in scales.items()}
        return {**small, **added}

    return lambda snapshot: change_weights(snapshot, UNET, change)


def remove(name: str) -> Change:
    return lambda snapshot: snapshot.remove(name)


def lose_weights(name: str, key: str) -> Change:
    return lambda snapshot: change_weights(snapshot, name, lambda weights: weights.pop(key))


REFUSED: dict[str, tuple[Change, dict[str, Any], str]] = {
    "no folder": (name_no_folder, {}, "source: there is no folder .*nowhere"),
    "single file": (name_a_single_file, {}, "source must be a folder, not .*from_single_file"),
    "cache folder": (name_the_cache, {}, f"{INDEX} is missing .* source to .*{COMMIT}"),
    "no index": (remove(INDEX), {}, f"{INDEX} is missing .*source must be .* a whole pipeline"),
    "index of another encoding": (
        lambda snapshot: (snapshot.folder / INDEX).write_bytes("{}".encode("utf-16")),
        {},
        f"{INDEX} must be JSON in UTF-8",
    ),
    "index incomplete": (
        lambda snapshot: snapshot.edit_json(INDEX, lambda index: index.pop("vae")),
        {},
        f"{INDEX} does not name vae, which a StableDiffusionPipeline needs",
    ),
    "variant not set": (
        keep_the_fp16_variant_only,
        {},
        '.*safetensors is missing, but .* another variant: set variant = "fp16"',
    ),
    "variant of none": (
        lambda _: None,
        {"variant": "bf16"},
        'variant = "bf16": no component has weights of it .there are none.; leave variant out',
    ),
    "variant of another": (
        lambda snapshot: shutil.copy(
            snapshot.folder / UNET, (snapshot.folder / UNET).with_suffix(".fp16.safetensors")
        ),
        {"variant": "bf16"},
        'variant = "bf16": no component has weights of it .there are fp16.',
    ),
    "folder gone": (
        remove("vae"),
        {},
        f"vae: {INDEX} names it, but there is no folder vae; set components.vae to",
    ),
    "weights gone": (remove(UNET), {}, f"{UNET} is missing; download it, or set components.unet"),
    "weights empty": (write_text(UNET, ""), {}, f"{UNET} is empty; download it again"),
    "weights cut off": (cut, {}, rf"{UNET} has only [\d,]+ of [\d,]+ bytes; download it again"),
    "weights of another kind": (
        write_text(UNET, "<!DOCTYPE html><p>Sign in to read this model</p>"),
        {},
        f"{UNET} is no safetensors file; download it again",
    ),
    "weights of integers": (
        quantize(torch.int8),
        {},
        f"{UNET} holds .*weight as I8, and no configuration says how it was quantized; use weights",
    ),
    "weights that were scaled": (
        quantize(torch.float8_e4m3fn, scale_weight=0.5),
        {},
        f"{UNET} holds .*weight as F8_E4M3, and no configuration says how it was quantized",
    ),
    "weights not pulled": (
        write_text(UNET, LFS_POINTER),
        {},
        f"{UNET} is a pointer of Git LFS, .* run git lfs pull",
    ),
    "vocabulary not pulled": (
        write_text("tokenizer/tokenizer.json", LFS_POINTER),
        {},
        "tokenizer/tokenizer.json is a pointer of Git LFS",
    ),
    "shard gone": (
        lose_a_shard,
        {},
        r"unet/diffusion_pytorch_model-00001-of-\d+.safetensors is missing, but .*index.json names",
    ),
    "index of shards spoilt": (
        write_text(f"{UNET}.index.json", "{}"),
        {},
        f"{UNET}.index.json is no index of shards",
    ),
    "weights of the VAE incomplete": (
        lose_weights(VAE, "decoder.conv_in.weight"),
        {},
        f"{VAE} lacks weights of a AutoencoderKL: decoder.conv_in.weight; set components.vae",
    ),
    "weights of the encoder incomplete": (
        lose_weights("text_encoder/model.safetensors", "final_layer_norm.bias"),
        {},
        "text_encoder/model.safetensors lacks weights of a CLIPTextModel: final_layer_norm.bias;",
    ),
    "quantized": (
        ask_for_bitsandbytes,
        {},
        "unet/config.json asks for quantization by bitsandbytes: install bitsandbytes, or set "
        "components.unet",
    ),
    "configuration gone": (remove("unet/config.json"), {}, "unet/config.json is missing"),
    "configuration spoilt": (
        write_text("vae/config.json", "{"),
        {},
        "vae/config.json must be JSON in UTF-8",
    ),
    "link broken": (break_a_link, {}, "unet/config.json is a link to .*, which does not exist"),
    "vocabulary gone": (
        remove("tokenizer/tokenizer.json"),
        {},
        "tokenizer/vocab.json is missing: the tokenizer needs tokenizer.json, or vocab.json and "
        "merges.txt",
    ),
    "class unknown": (
        lambda snapshot: snapshot.rename_component("unet", "diffusers", "FutureModel"),
        {},
        f"{INDEX}: unet is a FutureModel, which the installed diffusers does not have",
    ),
    "configuration of another model": (
        lambda snapshot: snapshot.edit_json(
            "scheduler/scheduler_config.json", lambda config: config.update(beta_schedule="odd")
        ),
        {},
        "scheduler: cannot load the PNDMScheduler: .*odd",
    ),
    "a size that is no number": (
        set_json("unet/config.json", sample_size=math.nan),
        {},
        "cannot serve this StableDiffusionPipeline: cannot convert float NaN to integer; check",
    ),
    "index too deep": (write_text(INDEX, DEEP), {}, f"{INDEX} is nested too deeply"),
    **{
        f"component is {value}": (
            set_json(INDEX, unet=value),
            {},
            f"{INDEX}: unet must be a library and a class, or null and null, not ",
        )
        for value in (None, "UNet2DConditionModel", ["diffusers", None], ["diffusers", "A", "B"])
    },
    **{
        f"{name} null": (
            set_json(INDEX, **{name: [None, None]}),
            {},
            f"{INDEX}: {name} is null, but a StableDiffusionPipeline needs it",
        )
        for name in ("unet", "text_encoder", "tokenizer")
    },
    **{
        f"{name} is {text}": (write_text(name, text), {}, f"{name} must be a JSON object")
        for name, text in (
            ("unet/config.json", "[]"),
            ("scheduler/scheduler_config.json", "null"),
            ("tokenizer/tokenizer_config.json", "3"),
            ("tokenizer/tokenizer.json", "null"),
            ("tokenizer/special_tokens_map.json", "[]"),
        )
    },
    "configuration too deep": (
        write_text("vae/config.json", DEEP),
        {},
        "vae/config.json is nested too deeply; download it again",
    ),
    "configuration a pipe": (
        write_pipe("vae/config.json"),
        {},
        "vae/config.json is no ordinary file; remove it, or set components.vae",
    ),
    "pipe beside": (write_pipe("unet/notes.txt"), {}, "unet/notes.txt is no ordinary file"),
    **{
        f"{key} {value}": (
            set_json("vae/config.json", **{key: value}),
            {},
            f"vae/config.json: {key} must be a number",
        )
        for key, value in (
            ("scaling_factor", math.inf),
            ("scaling_factor", 0),
            ("scaling_factor", None),
            ("scaling_factor", "x"),
            ("shift_factor", math.nan),
            ("shift_factor", "x"),
        )
    },
    "shards of numbers": (
        write_text(f"{UNET}.index.json", '{"weight_map": {"a": 1}}'),
        {},
        f"{UNET}.index.json is no index of shards",
    ),
    "shards of nothing": (
        write_text(f"{UNET}.index.json", '{"weight_map": {}}'),
        {},
        f"{UNET}.index.json is no index of shards",
    ),
    "index of shards too deep": (
        write_text(f"{UNET}.index.json", DEEP),
        {},
        f"{UNET}.index.json is nested too deeply",
    ),
    "header of weights spoilt": (set_end_of_weights("4"), {}, f"{UNET} is no safetensors file"),
    "header of weights too deep": (
        write_text(UNET, (len(DEEP)).to_bytes(8, "little").decode("latin-1") + DEEP),
        {},
        f"{UNET} is no safetensors file",
    ),
    "weights too long": (
        set_end_of_weights(0),
        {},
        rf"{UNET} has \d+ bytes, not the \d+ of its header; download it again",
    ),
    "weights of another size": (
        shrink("text_encoder/model.safetensors", "final_layer_norm.bias"),
        {},
        r"text_encoder/model.safetensors does not fit config.json: final_layer_norm.bias is "
        r"\(1,\), not \(\d+,\); download both again, or set components.text_encoder",
    ),
    "base class": (
        lambda snapshot: snapshot.rename_component("unet", "diffusers", "ModelMixin"),
        {},
        "unet: cannot load the ModelMixin: AttributeError: .*; check its files, or set components",
    ),
    "needed by the pipeline": (
        lambda _: None,
        {"components": {"text_encoder": False}},
        "components.text_encoder = false: a StableDiffusionPipeline needs it",
    ),
    "setting of no component": (
        lambda _: None,
        {"components": {"safety_cheker": False}},
        "components.safety_cheker is no component of this StableDiffusionPipeline; did you mean "
        "safety_checker[?] its components are .*scheduler, .*unet",
    ),
    "setting without a class": (
        lambda _: None,
        {"components": {"safety_checker": "/any"}},
        f"components.safety_checker cannot be replaced: {INDEX} names no class",
    ),
    "setting without a folder": (
        lambda _: None,
        {"components": {"vae": "/nowhere"}},
        "components.vae must be a folder or a Hub id; /nowhere is missing",
    ),
    "needed by all": (
        lambda _: None,
        {"components": {"vae": False}},
        "components.vae = false: no model can do without it",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_folder_that_cannot_be_loaded_is_refused_with_the_file_and_what_helps(
    name: str, snapshot: Snapshot
) -> None:
    change, settings, message = REFUSED[name]
    change(snapshot)
    with pytest.raises(ModelFolderError, match=f"^({message})"):
        snapshot.load(**settings)


def test_a_tokenizer_that_has_no_vocabulary_needs_none(tmp_path: Path) -> None:
    ByT5Tokenizer().save_pretrained(tmp_path)
    class_name, replaced_by = "ByT5Tokenizer", str(tmp_path)
    component = Component(
        "tokenizer", "transformers", class_name, tmp_path, tmp_path, replaced_by, is_optional=False
    )
    check_completeness(component)
    (tmp_path / "tokenizer_config.json").write_text("[")
    with pytest.raises(ModelFolderError, match=r"^components\.tokenizer: tokenizer_config\.json "):
        check_completeness(component)


def test_a_component_that_is_left_out_is_neither_vetted_nor_read(tmp_path: Path) -> None:
    make_checked_pipeline().save_pretrained(tmp_path / "model")
    snapshot = Snapshot(tmp_path / "model", tmp_path / "canary")
    checked = snapshot.load()
    snapshot.remove("safety_checker/model.safetensors")
    snapshot.write_pickle("safety_checker/pytorch_model.bin")
    with pytest.raises(UnsafeModelError, match=r"or set components\.safety_checker .* to false"):
        snapshot.load()
    snapshot.write_code("safety_checker/code.py")
    snapshot.rename_component("safety_checker", "code", "Custom")
    loaded = snapshot.load(components={"safety_checker": False})
    assert (checked.safety_checker is None, loaded.safety_checker is None) == (False, True)
    assert loaded.identity != checked.identity
    assert not snapshot.canary.exists()


def make_other_vae(snapshot: Snapshot) -> Path:
    """Copy the VAE with other weights, into a folder of its own."""
    folder = snapshot.folder.parent / "other"
    shutil.copytree(snapshot.folder / "vae", folder / "vae")
    name = "vae/diffusion_pytorch_model.safetensors"
    change_weights(
        Snapshot(folder, snapshot.canary),
        name,
        lambda weights: weights["decoder.conv_out.bias"].add_(1.0),
    )
    return folder


def test_a_component_is_replaced_by_its_folder_or_that_of_a_pipeline(
    snapshot: Snapshot, tiny_models: TinyModels
) -> None:
    other = make_other_vae(snapshot)
    snapshot.remove("vae")
    pictures = set()
    identities = set()
    for source in (other / "vae", other):
        loaded = snapshot.load(components={"vae": str(source)})
        pictures.add(draw(loaded))
        identities.add(loaded.identity)
    assert len(pictures) == 1
    assert draw(tiny_models["sd15"]) not in pictures
    change_weights(
        Snapshot(other, snapshot.canary),
        VAE,
        lambda weights: weights["decoder.conv_out.bias"].add_(1.0),
    )
    assert snapshot.load(components={"vae": str(other)}).identity not in identities


def test_components_that_the_hub_has_elsewhere_are_read_from_one_repository(
    tiny_models: TinyModels, tmp_path: Path
) -> None:
    """HiDream's index names a Llama that its repository does not have."""
    snapshot = copy_of(tiny_models, "hidream", tmp_path)
    llama = tmp_path / "llama"
    llama.mkdir()
    for name in ("text_encoder_4", "tokenizer_4"):
        for path in (snapshot.folder / name).iterdir():
            path.rename(llama / path.name)
        snapshot.remove(name)
    with pytest.raises(ModelFolderError, match=r"^text_encoder_4: .* set components\.text"):
        snapshot.load()
    components = dict.fromkeys(("text_encoder_4", "tokenizer_4"), str(llama))
    loaded = snapshot.load(components=components, defaults=DEFAULTS["hidream"])
    expected = tiny_models["hidream"].adapter.pipeline.text_encoder_4.state_dict()
    weights = loaded.adapter.pipeline.text_encoder_4.state_dict()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "vae/code.py").touch(), "components.vae: vae/code.py: code"),
        (
            lambda folder: (folder / VAE).rename(folder / "vae/weights.bin"),
            "components.vae: vae/weights.bin: reading it may run code",
        ),
        (
            lambda folder: (folder / VAE).write_bytes(b""),
            f"components.vae: {VAE} is empty",
        ),
        (
            lambda folder: (folder / "vae/config.json").write_text(
                '{"_class_name": "AutoencoderTiny"}'
            ),
            "components.vae: vae/config.json is that of a AutoencoderTiny; the model needs a "
            "AutoencoderKL",
        ),
    ],
    ids=["code", "pickle", "empty", "class"],
)
def test_a_component_from_elsewhere_is_vetted_like_the_model_s_own(
    spoil: Callable[[Path], object], message: str, snapshot: Snapshot
) -> None:
    other = make_other_vae(snapshot)
    spoil(other)
    with pytest.raises((ModelFolderError, UnsafeModelError), match=f"^{message}"):
        snapshot.load(components={"vae": str(other)})


@pytest.mark.parametrize("folder", ["vae", ""], ids=["repository", "pipeline"])
def test_a_component_is_replaced_by_one_of_the_hub(
    folder: str, snapshot: Snapshot, hub: LoopbackHub
) -> None:
    other = make_other_vae(snapshot)
    expected = draw(snapshot.load(components={"vae": str(other)}))
    hub.folder = other / folder
    (hub.folder / "handler.py").touch()
    (hub.folder / "vae.ckpt").touch()
    loaded = snapshot.load(components={"vae": f"{REPOSITORY}@{COMMIT}"})
    assert draw(loaded) == expected
    assert not any(path.endswith((".py", ".ckpt")) for path in hub.asked)


def test_a_model_of_the_hub_is_downloaded_without_the_components_that_settings_name(
    snapshot: Snapshot, hub: LoopbackHub
) -> None:
    other = make_other_vae(snapshot)
    loaded = snapshot.load(source=REPOSITORY, revision=COMMIT, components={"vae": str(other)})
    assert loaded.revision == COMMIT
    assert not any("/vae/" in path for path in hub.asked)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (keep_the_fp16_variant_only, 'another variant: set variant = "fp16"'),
        (remove(UNET), f"^{UNET} is missing"),
    ],
)
def test_weights_that_the_hub_lacks_are_reported_before_any_are_downloaded(
    change: Change, message: str, snapshot: Snapshot, hub: LoopbackHub
) -> None:
    change(snapshot)
    with pytest.raises(ModelFolderError, match=message):
        snapshot.load(source=REPOSITORY, revision=COMMIT)
    assert not any(path.endswith(".safetensors") for path in hub.asked)
