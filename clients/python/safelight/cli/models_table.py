"""The table of models."""

from collections.abc import Iterable

from rich.box import SIMPLE
from rich.table import Table

from safelight.models import Capabilities, Model


def models_table(models: Iterable[Model]) -> Table:
    """Return a table with a row for each model; unknown cells stay empty."""
    # The widths fit 80 columns with names of schedulers whole.
    table = Table(box=SIMPLE, pad_edge=False, show_edge=False)
    table.add_column("model", max_width=16, overflow="fold")
    table.add_column("state")
    table.add_column("defaults", no_wrap=True)
    table.add_column("schedulers", min_width=len("dpm++_2m_sde_karras,"), overflow="fold")
    table.add_column("limits", no_wrap=True)
    for model in models:
        name = f"{model.name} (default)" if model.is_default else model.name
        table.add_row(name, model.state, *_describe(model.capabilities))
    return table


def _describe(capabilities: Capabilities | None) -> tuple[str, ...]:
    if capabilities is None:
        return ()
    defaults, limits = capabilities.defaults, capabilities.limits
    settings = [f"{defaults.width}x{defaults.height} px", f"{defaults.num_inference_steps} steps"]
    if defaults.guidance_scale is not None:
        settings.append(f"guidance {defaults.guidance_scale:g}")
    bounds = [
        f"{limits.min_side_px}-{limits.max_side_px} px",
        f"by {limits.size_multiple_px} px",
        f"{limits.max_step_count} steps",
        f"guidance {limits.max_guidance_scale:g}",
        f"{limits.max_image_count} images",
    ]
    settings += [f"adapter {adapter.name}" for adapter in capabilities.adapters]
    aliases = (
        name
        for scheduler in capabilities.schedulers
        for name in scheduler.aliases or (scheduler.name,)
    )
    return "\n".join(settings), ", ".join(aliases), "\n".join(bounds)
