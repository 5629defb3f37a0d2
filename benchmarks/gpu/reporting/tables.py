"""Tables: figures as the Markdown of docs/performance.md."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from benchmarks.gpu.reporting.figures import Figure, Figures
from benchmarks.gpu.reporting.goals import GOALS

MODELS = {"sd15": "SD1.5", "sdxl": "SDXL", "flux": "FLUX.1-dev"}
"""Names of the models by the first part of their stages' names."""

_MISSING = "-"
_GAPS = 3


def render(figures: Figures) -> str:
    """Return all tables that there are figures for."""
    return "\n\n".join(part for part in _parts(figures) if part) + "\n"


def render_goals(figures: Figures) -> str:
    """Return the goals, and how far they are met."""
    rows = [(goal.text, goal.describe(), goal.judge(figures)) for goal in GOALS]
    return _table(("goal", "wanted", "measured"), rows)


def model_of(figure: Figure) -> str:
    """Name the model of a figure, and the size of its images."""
    model = MODELS.get(figure.stage.partition("-")[0], figure.stage)
    return f"{model} {figure.values['side_px']}²"


def _parts(figures: Figures) -> Iterator[str]:
    yield _describe(figures)
    yield render_goals(figures)
    yield _section("Milliseconds of a forward, by images that share it:", _forwards(figures))
    yield _section(
        "The service next to the bare pipeline, one caller, in steps a second:",
        _list(
            (_with_model(figure) for figure in figures.all("overhead")),
            {
                "model": "{model}",
                "steps": "{steps}",
                "bare": "{bare_steps_per_s}",
                "service": "{served_steps_per_s}",
                "overhead": "{overhead:.1%}",
            },
        ),
    )
    yield _section(
        "The service, by callers that ask for one image after another:",
        _list(
            (
                {**_with_model(figure), "mean": _mean_width(figure.values["widths"])}
                for figure in figures.all("served")
            ),
            {
                "model": "{model}",
                "variant": "{variant}",
                "steps": "{steps}",
                "callers": "{callers}",
                "images/s": "{images_per_s:.2f}",
                "median latency": "{latency_s:.2f} s",
                "mean width": "{mean:.1f}",
            },
        ),
    )
    yield _section(
        "Time in which the GPU was busy, under the profiler, which slows the host:",
        _list(
            (
                {**_with_model(figure), "longest": _describe_gaps(figure.values["gaps"])}
                for figure in figures.all("usage")
            ),
            {
                "model": "{model}",
                "variant": "{variant}",
                "callers": "{callers}",
                "busy": "{busy_share:.1%}",
                "longest gaps, and what ended them": "{longest}",
            },
        ),
    )
    yield _section(
        "One image from its prompt to its file, alone:",
        _list(
            (_with_model(figure) for figure in figures.all("image")),
            {
                "model": "{model}",
                "variant": "{variant}",
                "steps": "{steps}",
                "seconds": "{seconds:.2f}",
            },
        ),
    )
    yield _section(
        "Decodes by the VAE:",
        _list(
            (_with_model(figure) for figure in figures.all("decode")),
            {
                "model": "{model}",
                "memory layout": "{layout}",
                "images": "{images}",
                "ms": "{decode_ms:.1f}",
            },
        ),
    )
    yield _section(
        "Text encoders, one prompt:",
        _list(
            (figure.values for figure in figures.all("encoder")),
            {
                "encoder": "{encoder}",
                "tokens": "{tokens}",
                "ms": "{encode_ms:.1f}",
                "ms of the host": "{launch_ms:.1f}",
            },
        ),
    )
    yield _section(
        "Largest differences between two images of a tiny pipeline, in levels of 0 to 255:",
        _list(
            (figure.values for figure in figures.all("family")),
            {
                "family": "{family}",
                "precision": "{dtype}",
                "merged and alone": "{merged_to_alone}",
                "merged, and merged on the CPU": "{to_cpu}",
            },
        ),
    )
    yield _section("The embedded model, and a GPU with too little memory:", _checks(figures))
    yield _section("Not measured:", _missing(figures))


def _describe(figures: Figures) -> str:
    machine = figures.machine
    versions = f"torch {machine['torch']} and diffusers {machine['diffusers']}"
    if figures.is_rehearsal:
        return (
            f"**A rehearsal on the CPU with shrunk models, {versions}: it proves the commands, and "
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
    return f"Measured on one {machine['gpu']} with {versions}, random weights, bfloat16.{card}"


def _with_model(figure: Figure) -> Mapping[str, object]:
    return {**figure.values, "model": model_of(figure)}


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
    """Return how many images share a forward, as the mean of all images sees it."""
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
        if ending not in ("done", "failed")  # a stage that failed has written down why
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


def _list(rows: Iterable[Mapping[str, object]], columns: Mapping[str, str]) -> str:
    """Return a table of a row each, with columns by their heads as formats of its values."""
    return _table(
        tuple(columns), [[each.format_map(row) for each in columns.values()] for row in rows]
    )


def _section(title: str, table: str) -> str:
    return f"{title}\n\n{table}" if table else ""


def _table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table; nothing where there are no rows."""
    lines = [_row(row) for row in rows]
    return "\n".join([_row(heads), _row(["---"] * len(heads)), *lines]) if lines else ""


def _row(cells: Sequence[object]) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"
