"""Tokenizers with one token per character or byte, of the classes that pipelines expect."""

import string

from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.processors import TemplateProcessing
from transformers import (
    BertTokenizer,
    CLIPImageProcessorPil,
    CLIPTokenizer,
    GemmaTokenizer,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    Qwen2Tokenizer,
    T5Tokenizer,
)

_CHARACTERS = sorted(set(string.printable) - set(string.whitespace))
_BYTES = sorted(ByteLevel.alphabet())
_CHAT_WORDS = [
    "system",
    "user",
    "assistant",
    "Describe",
    "Ġthe",
    "Ġimage",
    "Ġby",
    "Ġdetailing",
    "Ġcolor",
    "Ġshape",
    "Ġsize",
    "Ġtexture",
    "Ġquantity",
    "Ġtext",
    "Ġspatial",
    "Ġrelationships",
    "Ġof",
    "Ġobjects",
    "Ġand",
    "Ġbackground",
]
"""Words of Qwen-Image's template; the pipeline drops its first 34 tokens. Ġ is a space."""

_CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and not enable_thinking %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)

_MISTRAL_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message.role == 'system' %}"
    "[SYSTEM_PROMPT]{{ message.content[0].text }}[/SYSTEM_PROMPT]{% else %}"
    "[INST]{{ message.content[0].text }}[/INST]{% endif %}{% endfor %}"
)


def make_clip_tokenizer(length: int = 77) -> CLIPTokenizer:
    """Make a tokenizer of `length` tokens: start, characters without spaces, end."""
    tokens = [*_BYTES, *(f"{byte}</w>" for byte in _BYTES), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab=_number(tokens), merges=[], model_max_length=length)


def make_bert_tokenizer() -> BertTokenizer:
    """Make a tokenizer of 77 tokens: start, characters without spaces, end."""
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *_CHARACTERS]
    tokens += [f"##{character}" for character in _CHARACTERS]
    return BertTokenizer(vocab=_number(tokens), model_max_length=77)


def make_t5_tokenizer() -> T5Tokenizer:
    """Make a tokenizer with a token per character, spaces included, and one for the end."""
    scores = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -10.0), ("▁", -1.0)]
    scores += [(character, -1.0) for character in _CHARACTERS]
    return T5Tokenizer(vocab=scores, extra_ids=0, model_max_length=512)


def make_gemma_tokenizer() -> GemmaTokenizer:
    """Make a tokenizer with a token for the start and one for each byte."""
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *_CHARACTERS]
    tokens += [f"<0x{byte:02X}>" for byte in range(256)]
    return GemmaTokenizer(vocab=_number(tokens), merges=[], add_bos_token=True)


def make_qwen_tokenizer() -> Qwen2Tokenizer:
    """Make a tokenizer with a token per byte, or per word of Qwen-Image's template."""
    merges = [(word[:end], word[end]) for word in _CHAT_WORDS for end in range(1, len(word))]
    merges = list(dict.fromkeys(merges))
    tokens = [*_BYTES, *(left + right for left, right in merges)]
    special = ["<|im_start|>", "<|im_end|>", "<think>", "</think>"]
    tokenizer = Qwen2Tokenizer(
        vocab=_number([*tokens, "<|endoftext|>", *special]),
        merges=merges,
        additional_special_tokens=special,
        model_max_length=131_072,
    )
    tokenizer.chat_template = _CHAT_TEMPLATE
    return tokenizer


def make_glm_tokenizer() -> PreTrainedTokenizerFast:
    """Make a tokenizer with two tokens for the start and one for each byte."""
    return _make_byte_tokenizer(
        ["[gMASK]", "<sop>"], eos_token="<|endoftext|>", pad_token="<|endoftext|>"
    )


def make_llama_tokenizer() -> PreTrainedTokenizerFast:
    """Make a tokenizer with a token for the start and one for each byte."""
    start = "<|begin_of_text|>"
    return _make_byte_tokenizer([start], bos_token=start, eos_token="<|end_of_text|>")


def make_mistral_processor() -> LlavaProcessor:
    """Make the text and image processor of FLUX.2-dev, with a token for each byte of text.

    The real class, PixtralProcessor, treats text the same way but needs torchvision.
    """
    marks = ["[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[IMG]"]
    tokenizer = _make_byte_tokenizer(
        ["<s>"], marks, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    return LlavaProcessor(
        CLIPImageProcessorPil(), tokenizer, chat_template=_MISTRAL_TEMPLATE, image_token="[IMG]"
    )


def _make_byte_tokenizer(
    start: list[str], marks: list[str] | None = None, **special: str
) -> PreTrainedTokenizerFast:
    vocabulary = _number([*_BYTES, *start, *(marks or []), *special.values()])
    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevelDecoder()
    tokenizer.post_processor = TemplateProcessing(
        single=[*start, "$A"], special_tokens=[(token, vocabulary[token]) for token in start]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, additional_special_tokens=marks, **special
    )


def _number(tokens: list[str]) -> dict[str, int]:
    return {token: number for number, token in enumerate(dict.fromkeys(tokens))}
