"""Half blocks: a picture in a terminal, with two pixels in each character."""

import PIL.Image
from rich.color import Color
from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.style import Style

_MAX_ROWS = 24
_ROWS_FOR_THE_BAR = 3


class HalfBlocks:
    """A picture that rich can print, within 24 rows."""

    def __init__(self, picture: PIL.Image.Image) -> None:
        self._picture = picture.convert("RGB")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the picture's characters, line by line."""
        width, height = self._fit(options.max_width, console.height - _ROWS_FOR_THE_BAR)
        pixels = self._picture.resize((width, height)).tobytes()  # (height, width, RGB)
        for row in range(0, height, 2):
            for column in range(width):
                upper, lower = (3 * ((row + below) * width + column) for below in (0, 1))
                top = Color.from_rgb(*pixels[upper : upper + 3])
                bottom = Color.from_rgb(*pixels[lower : lower + 3])
                yield Segment("▀", Style(color=top, bgcolor=bottom))
            yield Segment.line()

    def _fit(self, max_columns: int, max_rows: int) -> tuple[int, int]:
        """Return the size in pixels: a column is one wide, a row is two high."""
        rows = max(1, min(_MAX_ROWS, max_rows))
        scale = min(max_columns / self._picture.width, 2 * rows / self._picture.height)
        width = max(1, int(self._picture.width * scale))
        height = max(2, 2 * int(self._picture.height * scale / 2))
        return width, height
