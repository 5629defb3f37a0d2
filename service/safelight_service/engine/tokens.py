"""Tokens: how many a prompt becomes, and how many the model reads.

Pipelines cut a prompt that is too long, with no more than a warning; the service
refuses it instead, so it has to count as the pipeline does.
"""

import copy
import inspect
import threading
from collections.abc import Mapping
from typing import Any

_UNBOUNDED = 100_000
"""Tokenizers without a limit report a huge one."""

_CHAT_OPTIONS: Mapping[str, Mapping[str, object]] = {
    "ZImagePipeline": {"add_generation_prompt": True, "enable_thinking": True},
}
"""Pipelines that put the prompt into their tokenizer's chat template, and how."""


class PromptTokens:
    """Counts the tokens of prompts for one pipeline."""

    def __init__(self, pipeline: Any, arguments: Mapping[str, inspect.Parameter]) -> None:
        self._pipeline = pipeline
        self._arguments = arguments
        self._tokenizer, self.max_count = self._find_tokenizer()
        self._lock = threading.Lock()

    def count(self, prompt: str) -> int:
        """Count the tokens that the prompt becomes, special ones included."""
        if self._tokenizer is None:
            return 0
        if hasattr(self._pipeline, "_text_preprocessing"):  # PixArt and Sana lower the case
            prompt = self._pipeline._text_preprocessing(prompt)[0]
        with self._lock:
            return self._count_in_template(prompt)

    def _count_in_template(self, prompt: str) -> int:
        """Count what a template adds to the prompt only if the limit includes it."""
        chat_options = _CHAT_OPTIONS.get(type(self._pipeline).__name__)
        if chat_options is not None:
            messages = [{"role": "user", "content": prompt}]
            return self._count(
                self._tokenizer.apply_chat_template(messages, tokenize=False, **chat_options)
            )
        template = getattr(self._pipeline, "prompt_template_encode", None)
        if isinstance(template, str):  # Qwen-Image drops the part before the prompt
            dropped: int = self._pipeline.prompt_template_encode_start_idx
            return self._count(template.format(prompt)) - dropped
        if "complex_human_instruction" in self._arguments:
            # Sana puts these lines first and makes room for all but two of their tokens.
            lines = "\n".join(self._arguments["complex_human_instruction"].default)
            return self._count(lines + prompt) - self._count(lines) + 2
        return self._count(prompt)

    def _count(self, text: str) -> int:
        return len(self._tokenizer(text, truncation=False, verbose=False).input_ids)

    def _find_tokenizer(self) -> tuple[Any, int | None]:
        """Return the tokenizer that reads the most of a prompt, and how much.

        A copy: a tokenizer that is shared by threads silently returns ids of
        the wrong length.
        """
        longest, most = None, 0
        sequence_length = self._arguments.get("max_sequence_length")
        for name, tokenizer in self._pipeline.components.items():
            if not name.startswith("tokenizer") or tokenizer is None:
                continue
            limit = tokenizer.model_max_length
            if sequence_length is not None and "CLIP" not in type(tokenizer).__name__:
                limit = sequence_length.default
            if most < limit < _UNBOUNDED:
                longest, most = tokenizer, limit
        return copy.deepcopy(longest), most or None
