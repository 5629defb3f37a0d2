"""Tokenizer: one token per word, without case and punctuation."""

from collections.abc import Sequence

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from training.scenes.words import vocabulary

MAX_TOKENS = 32
# The end of text must not be token 2: transformers treats that id as an old kind of encoder.
SPECIAL_TOKENS = ("<pad>", "<start>", "<unknown>", "<end>")


def build_tokenizer(words: Sequence[str] | None = None) -> PreTrainedTokenizerFast:
    """Build a tokenizer of these words; the default is the vocabulary of captions."""
    entries = [*SPECIAL_TOKENS, *(vocabulary() if words is None else words)]
    numbers = {word: number for number, word in enumerate(entries)}
    core = Tokenizer(models.WordLevel(numbers, unk_token="<unknown>"))
    core.normalizer = normalizers.Sequence(
        [
            normalizers.NFKC(),
            normalizers.Lowercase(),
            normalizers.Replace(Regex("[^\\p{L}\\p{N}]+"), " "),
            normalizers.Strip(),
        ]
    )
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>",
        special_tokens=[(token, numbers[token]) for token in ("<start>", "<end>")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        model_max_length=MAX_TOKENS,
        pad_token="<pad>",
        bos_token="<start>",
        unk_token="<unknown>",
        eos_token="<end>",
    )
