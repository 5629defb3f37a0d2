"""PromptTokens: counts the tokens of a prompt, and finds a model's limit.

Pipelines truncate longer prompts with only a warning. The service refuses them, so it has to
count as the pipeline does.
"""

import copy
import inspect
import threading
from collections.abc import Mapping
from typing import Any

_UNBOUNDED = 100_000
"""Limits from here on count as none: tokenizers without a limit report a huge one."""

_CHAT_OPTIONS: Mapping[str, Mapping[str, object]] = {
    "ZImagePipeline": {"add_generation_prompt": True, "enable_thinking": True},
    "Flux2KleinPipeline": {"add_generation_prompt": True, "enable_thinking": False},
}
"""Options of pipelines that put the prompt into their tokenizer's chat template."""

_FIXED_LIMITS: Mapping[str, Mapping[str, int]] = {
    "HunyuanDiTPipeline": {"tokenizer": 77, "tokenizer_2": 256},
}
"""Token limits of pipelines that state them neither in arguments nor in tokenizers."""


class PromptTokens:
    """Counts the tokens of prompts for one pipeline. Safe to use from several threads."""

    def __init__(self, pipeline: Any, arguments: Mapping[str, inspect.Parameter]) -> None:
        self._pipeline = pipeline
        self._arguments = arguments
        self._tokenizers, self.max_count = self._find_tokenizers()
        self._lock = threading.Lock()

    def count(self, prompt: str) -> int:
        """Return the number of tokens of a prompt, special ones included."""
        if hasattr(self._pipeline, "_text_preprocessing"):  # PixArt and Sana convert to lower case
            prompt = self._pipeline._text_preprocessing(prompt)[0]
        with self._lock:
            return max((self._count(each, prompt) for each in self._tokenizers), default=0)

    def _count(self, tokenizer: Any, prompt: str) -> int:
        """Count the tokens of a prompt, and those of its template if the limit includes them."""
        if type(self._pipeline).__name__ == "Flux2Pipeline":
            return _length_of_chat(tokenizer, self._pipeline.system_message, prompt)
        chat_options = _CHAT_OPTIONS.get(type(self._pipeline).__name__)
        if chat_options is not None:
            messages = [{"role": "user", "content": prompt}]
            chat = tokenizer.apply_chat_template(messages, tokenize=False, **chat_options)
            return _length(tokenizer, chat)
        template = getattr(self._pipeline, "prompt_template_encode", None)
        if isinstance(template, str):  # Qwen-Image drops the text before the prompt
            dropped: int = self._pipeline.prompt_template_encode_start_idx
            return _length(tokenizer, template.format(prompt)) - dropped
        if "complex_human_instruction" in self._arguments:
            # Sana prepends these lines, and extends its limit by their tokens less two.
            lines = "\n".join(self._arguments["complex_human_instruction"].default)
            return _length(tokenizer, lines + prompt) - _length(tokenizer, lines) + 2
        if hasattr(self._pipeline, "system_prompt"):  # Lumina prepends it and this mark
            prompt = f"{self._pipeline.system_prompt} <Prompt Start> {prompt}"
        return _length(tokenizer, prompt)

    def _find_tokenizers(self) -> tuple[list[Any], int | None]:
        """Return the tokenizers with the largest limit, and that limit.

        Ignores tokenizers of encoders that the pipeline lacks, since nothing reads their tokens.
        Copies them: a tokenizer that threads share can return ids of the wrong length.
        """
        limits = [
            (tokenizer, self._limit(name, tokenizer))
            for name, tokenizer in self._pipeline.components.items()
            if name.startswith("tokenizer") and tokenizer is not None and self._is_read(name)
        ]
        most = max((limit for _, limit in limits if limit < _UNBOUNDED), default=None)
        longest = [copy.deepcopy(tokenizer) for tokenizer, limit in limits if limit == most]
        return longest, most

    def _is_read(self, tokenizer_name: str) -> bool:
        """Whether the pipeline has a tokenizer's encoder; assumed if none has the matching name."""
        encoder_name = tokenizer_name.replace("tokenizer", "text_encoder")
        components = self._pipeline.components
        return encoder_name not in components or components[encoder_name] is not None

    def _limit(self, name: str, tokenizer: Any) -> int:
        fixed = _FIXED_LIMITS.get(type(self._pipeline).__name__)
        if fixed is not None:
            return fixed[name]
        asked = self._arguments.get("max_sequence_length")
        if asked is not None and "CLIP" not in type(tokenizer).__name__:
            return int(asked.default)
        limit: int = tokenizer.model_max_length
        return limit if asked is None else min(limit, asked.default)


def _length_of_chat(processor: Any, system_message: str, prompt: str) -> int:
    """Count as FLUX.2 does, whose tokenizer is a processor for texts and images."""
    texts = {"system": system_message, "user": prompt.replace("[IMG]", "")}
    chat = [
        {"role": role, "content": [{"type": "text", "text": text}]} for role, text in texts.items()
    ]
    read = processor.apply_chat_template([chat], tokenize=True, return_dict=True)
    return len(read["input_ids"][0])


def _length(tokenizer: Any, text: str) -> int:
    return len(tokenizer(text, truncation=False, verbose=False).input_ids)
