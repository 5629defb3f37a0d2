"""`make bench-gpu-report`: writes the figures of a run into docs/performance.md and plots them."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.gpu.reporting.figures import Figures
from benchmarks.gpu.reporting.plot import draw
from benchmarks.gpu.reporting.tables import render

_RESULTS = Path("benchmarks/results/gpu")
_PAGE = Path("docs/performance.md")
_PLOT = Path("docs/images/gpu.svg")
BEGIN = "<!-- What follows is written by `python -m benchmarks.gpu.report`. -->"
END = "<!-- What it writes ends here. -->"


def main() -> None:
    """Run the command."""
    arguments = _parse(sys.argv[1:])
    try:
        figures = Figures.read(arguments.folder / "results.jsonl")
        if figures.is_rehearsal and _PAGE.resolve() == arguments.page.resolve():
            raise ValueError(f"figures of a rehearsal do not belong into {_PAGE}; give --page")
        text = insert(arguments.page.read_text(), render(figures), arguments.plot.name)
    except (OSError, ValueError) as error:
        sys.exit(f"python -m benchmarks.gpu.report: {error}")
    draw(figures, arguments.plot)
    arguments.page.write_text(text)


def insert(page: str, tables: str, plot: str) -> str:
    """Replace the text between a page's marks with a plot from images/ and the tables.

    Raises:
        ValueError: the page lacks a mark.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page needs these two lines:\n{BEGIN}\n{END}")
    picture = f"![Images a second by width and by callers](images/{plot})"
    return f"{before}{BEGIN}\n\n{picture}\n\n{tables}\n{END}{after}"


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.report", description=__doc__)
    parser.add_argument(
        "folder", type=Path, nargs="?", default=_RESULTS, help=f"results (default: {_RESULTS})"
    )
    parser.add_argument("--page", type=Path, default=_PAGE, help=f"page (default: {_PAGE})")
    parser.add_argument("--plot", type=Path, default=_PLOT, help=f"plot (default: {_PLOT})")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
