"""Tables: figures as the Markdown of docs/performance.md."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.gpu.reporting.figures import Figure, Figures
from benchmarks.gpu.reporting.goals import CARD, GOALS

MODELS = {"sd15": "SD1.5", "sdxl": "SDXL", "flux": "FLUX.1-dev"}
"""Names of the models, by the first part of a stage's name."""

_MISSING = "-"
_GAPS = 3


def render(figures: Figures) -> str:
    """Return the tables of all figures, as Markdown."""
    return "\n\n".join(part for part in _parts(figures) if part) + "\n"


def render_goals(figures: Figures) -> str:
    """Return the table of goals and measured values."""
    rows = [(goal.text, goal.describe(), goal.judge(figures)) for goal in GOALS]
    return _table(("goal", "wanted", "measured"), rows)


def model_of(figure: Figure) -> str:
    """Return the model and the image size of a figure, as in "SDXL 1024²"."""
    model = MODELS.get(figure.stage.partition("-")[0], figure.stage)
    return f"{model} {figure.values['side_px']}²"


@dataclass(frozen=True, slots=True)
class _Listing:
    """Table with a row for each figure of a name."""

    title: str
    name: str
    columns: Mapping[str, str]
    """Format strings of a figure's values, by the heads of their columns."""

    def render(self, figures: Figures) -> str:
        """Return the table, or an empty string without figures."""
        rows = [_values_of(figure) for figure in figures.all(self.name)]
        return _table(
            tuple(self.columns),
            [[column.format_map(row) for column in self.columns.values()] for row in rows],
        )


_LISTINGS = (
    _Listing(
        "The service and the bare pipeline, one caller, in steps per second:",
        "overhead",
        {
            "model": "{model}",
            "steps": "{steps}",
            "bare": "{bare_steps_per_s}",
            "service": "{served_steps_per_s}",
            "overhead": "{overhead:.1%}",
        },
    ),
    _Listing(
        "The service, by the number of callers that request one image after another:",
        "served",
        {
            "model": "{model}",
            "variant": "{variant}",
            "steps": "{steps}",
            "callers": "{callers}",
            "images/s": "{images_per_s:.2f}",
            "median latency": "{latency_s:.2f} s",
            "mean width": "{mean_width:.1f}",
        },
    ),
    _Listing(
        "Share of time in which the GPU was busy, under the profiler, which slows the host:",
        "usage",
        {
            "model": "{model}",
            "variant": "{variant}",
            "callers": "{callers}",
            "busy": "{busy_share:.1%}",
            "longest gaps, and what ended them": "{longest_gaps}",
        },
    ),
    _Listing(
        "One image alone, from prompt to file:",
        "image",
        {
            "model": "{model}",
            "variant": "{variant}",
            "steps": "{steps}",
            "seconds": "{seconds:.2f}",
        },
    ),
    _Listing(
        "Images of several callers at once, whose requests have an option:",
        "cost",
        {
            "model": "{model}",
            "steps": "{steps}",
            "callers": "{callers}",
            "option": "{option}",
            "images/s": "{images_per_s:.2f}",
            "ratio": "{ratio:.2f}",
        },
    ),
    _Listing(
        "Decodes by the VAE:",
        "decode",
        {
            "model": "{model}",
            "memory layout": "{layout}",
            "images": "{images}",
            "ms": "{decode_ms:.1f}",
        },
    ),
    _Listing(
        "Text encoders, one prompt:",
        "encoder",
        {
            "encoder": "{encoder}",
            "tokens": "{tokens}",
            "ms": "{encode_ms:.1f}",
            "ms of the host": "{launch_ms:.1f}",
        },
    ),
    _Listing(
        "SDXL's denoiser, loaded from files that are in the host's memory:",
        "load",
        {
            "way": "{way}",
            "GiB": "{gib}",
            "first, s": "{first_s:.2f}",
            "second, s": "{second_s:.2f}",
        },
    ),
    _Listing(
        "Largest differences between two images of a tiny pipeline, in levels of 0 to 255:",
        "family",
        {
            "family": "{family}",
            "precision": "{dtype}",
            "merged and alone": "{merged_to_alone}",
            "merged, and merged on the CPU": "{to_cpu}",
        },
    ),
    _Listing(
        "The same for requests with these options, in float32:",
        "option",
        {
            "family": "{family}",
            "option": "{option}",
            "merged and alone": "{merged_to_alone}",
            "merged, and merged on the CPU": "{to_cpu}",
        },
    ),
)


def _values_of(figure: Figure) -> Mapping[str, object]:
    """Return the values of a figure, and those that tables derive from them."""
    values = dict(figure.values)
    if "side_px" in values:
        values["model"] = model_of(figure)
    if "widths" in values:
        values["mean_width"] = _mean_width(values["widths"])
    if "gaps" in values:
        values["longest_gaps"] = _describe_gaps(values["gaps"])
    return values


def _parts(figures: Figures) -> Iterator[str]:
    yield _describe(figures)
    yield render_goals(figures)
    yield _section(
        "Milliseconds of a forward, by the number of images that share it:", _forwards(figures)
    )
    for listing in _LISTINGS:
        yield _section(listing.title, listing.render(figures))
    yield _section("The embedded model, and a GPU with too little memory:", _checks(figures))
    yield _section("Not measured:", _missing(figures))


def _describe(figures: Figures) -> str:
    machine = figures.machine
    versions = f"torch {machine['torch']} and diffusers {machine['diffusers']}"
    if figures.is_rehearsal:
        return (
            f"**A rehearsal on the CPU with shrunk models, {versions}: it tries the commands, and "
            "its figures mean nothing.**"
        )
    ceilings = [
        f"{value:.{digits}f} {unit}"
        for name, key, digits, unit in (
            ("arithmetic", "tflops", 0, "TFLOP/s in bfloat16"),
            ("bandwidth", "tb_per_s", 1, "TB/s"),
            ("launch", "us", 1, "µs of the host for an operation"),
        )
        if (value := figures.value("card", name, key)) is not None
    ]
    card = f" It reaches {', '.join(ceilings)}." if ceilings else ""
    goals = "" if CARD in machine["gpu"] else f" The goals were set for one {CARD}."
    memory = f" ({machine['gpu_gib']} GiB)" if "gpu_gib" in machine else ""
    return (
        f"Measured on one {machine['gpu']}{memory} with {versions}, random weights, "
        f"bfloat16.{card}{goals}"
    )


def _forwards(figures: Figures) -> str:
    rows: dict[tuple[str, str], dict[int, str]] = {}
    for figure in figures.all("forward"):
        row = rows.setdefault((model_of(figure), figure.values["variant"]), {})
        row[figure.values["width"]] = f"{figure.values['forward_ms']:.1f}"
    widths = sorted({width for row in rows.values() for width in row})
    return _table(
        ("model", "variant", *map(str, widths)),
        [(*name, *(row.get(width, _MISSING) for width in widths)) for name, row in rows.items()],
    )


def _mean_width(widths: Mapping[str, int]) -> float:
    """Return the mean number of images in a forward, averaged over images, not forwards."""
    count = sum(widths.values())
    return sum(int(width) * forwards for width, forwards in widths.items()) / count if count else 0


def _describe_gaps(gaps: Sequence[tuple[float, str, str]]) -> str:
    return ", ".join(f"{ms:.1f} ms `{before}`" for ms, _, before in gaps[:_GAPS])


def _checks(figures: Figures) -> str:
    rows: list[tuple[str, str]] = []
    for figure in figures.all("embedded"):
        values = figure.values
        rows.append(
            (
                f"an image in {values['dtype']}",
                f"differs from the CPU's by {values['to_cpu']}; {values['previews']} previews",
            )
        )
    for figure in figures.all("cancellation"):
        values = figure.values
        cancelled, failed = len(values["cancelled"]), len(values["failed"])
        rows.append(
            (
                "two of nine generations cancelled",
                f"{cancelled} cancelled, {values['completed']} completed, {failed} failed",
            )
        )
    for figure in figures.all("continued"):
        values = figure.values
        rows.append(
            (
                f"an image of {values['family']}, again from its log",
                f"{values['logged_steps']} steps logged; differs by {values['to_first']}",
            )
        )
    for figure in figures.all("memory"):
        values = figure.values
        errors = ", ".join(f"{count} {name}" for name, count in values["errors"].items())
        widths = ", ".join(f"{count} of {width}" for width, count in values["widths"].items())
        rows.append(
            (
                f"{values['images']} images at once, {values['case']}",
                f"{errors or 'none failed'}; forwards by width: {widths or 'none'}",
            )
        )
    return _table(("check", "result"), rows)


def _missing(figures: Figures) -> str:
    rows = [
        (stage, ending)
        for stage, ending in figures.endings.items()
        if ending not in ("done", "failed")  # a failed stage has recorded its error
    ]
    for figure in figures.failures():
        conditions = [
            f"{key} {value}"
            for key, value in figure.values.items()
            if key not in ("error", "text", "where", "took_s")
        ]
        what = ", ".join([figure.name, *conditions])
        rows.append((f"{figure.stage}: {what}", str(figure.error)))
    return _table(("what", "why"), rows)


def _section(title: str, table: str) -> str:
    return f"{title}\n\n{table}" if table else ""


def _table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table, or an empty string without rows."""
    lines = [_row(row) for row in rows]
    return "\n".join([_row(heads), _row(["---"] * len(heads)), *lines]) if lines else ""


def _row(cells: Sequence[object]) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"
