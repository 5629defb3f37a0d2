"""Links: finds and replaces the targets of links and images in Markdown."""

import re
from collections.abc import Callable

_FENCE = re.compile(r"^ *(```|~~~)")
_TARGET = re.compile(r"(?<=\]\()([^()\s]+)(?=\))")
_EXTERNAL = re.compile(r"[a-z][a-z0-9+.-]*:|#|/")


def rewrite(text: str, replace: Callable[[str], str]) -> str:
    """Replace each relative target outside of code blocks by `replace(target)`.

    Targets with a scheme, absolute paths and bare anchors stay as they are. An anchor after a
    path is part of the target.
    """
    in_code = False
    lines = []
    for line in text.splitlines():
        if _FENCE.match(line):
            in_code = not in_code
        lines.append(line if in_code else _TARGET.sub(lambda match: _new(match, replace), line))
    return "\n".join(lines) + "\n"


def _new(match: re.Match[str], replace: Callable[[str], str]) -> str:
    target = match[0]
    return target if _EXTERNAL.match(target) else replace(target)
