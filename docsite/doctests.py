"""Doctests: turns examples in docstrings into code blocks; Markdown reads them as quotations."""

import re
from typing import Any

import griffe

_EXAMPLE = re.compile(r"(?m)(?:^>>> .*\n?(?:^(?!$).*\n?)*)+")


class Doctests(griffe.Extension):
    """Extension of Griffe, which mkdocstrings loads by the name of this module."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Fence the examples of an object's docstring."""
        if obj.docstring is not None:
            obj.docstring.value = fence(obj.docstring.value)


def fence(text: str) -> str:
    """Put fences around each example: from `>>>` to the next empty line."""
    return _EXAMPLE.sub(lambda match: f"```pycon\n{match[0].rstrip()}\n```\n", text)
