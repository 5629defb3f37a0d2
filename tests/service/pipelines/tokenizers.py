"""Tokenizers of one token a character, of the classes that each pipeline expects."""

import string

from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer, GemmaTokenizer, Qwen2Tokenizer, T5Tokenizer

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
"""Words of Qwen-Image's template, whose first 34 tokens the pipeline drops; Ġ is a space."""

_CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def make_clip_tokenizer() -> CLIPTokenizer:
    """Reads 77 tokens: start, up to 75 characters without the spaces, end."""
    tokens = [*_BYTES, *(f"{byte}</w>" for byte in _BYTES), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab=_number(tokens), merges=[], model_max_length=77)


def make_t5_tokenizer() -> T5Tokenizer:
    """Makes a token of each character and of each space, and one of the end."""
    scores = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -10.0), ("▁", -1.0)]
    scores += [(character, -1.0) for character in _CHARACTERS]
    return T5Tokenizer(vocab=scores, extra_ids=0, model_max_length=512)


def make_gemma_tokenizer() -> GemmaTokenizer:
    """Make a tokenizer of one token for the start and one for each byte."""
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *_CHARACTERS]
    tokens += [f"<0x{byte:02X}>" for byte in range(256)]
    return GemmaTokenizer(vocab=_number(tokens), merges=[], add_bos_token=True)


def make_qwen_tokenizer() -> Qwen2Tokenizer:
    """Makes a token of each byte, but one of each word of Qwen-Image's template."""
    merges = [(word[:end], word[end]) for word in _CHAT_WORDS for end in range(1, len(word))]
    merges = list(dict.fromkeys(merges))
    tokens = [*_BYTES, *(left + right for left, right in merges)]
    tokens += ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = Qwen2Tokenizer(
        vocab=_number(tokens),
        merges=merges,
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
        model_max_length=131_072,
    )
    tokenizer.chat_template = _CHAT_TEMPLATE
    return tokenizer


def _number(tokens: list[str]) -> dict[str, int]:
    return {token: number for number, token in enumerate(dict.fromkeys(tokens))}
