"""Stages, in order: first checks that the results are right, then the measurements."""

from benchmarks.gpu.driver import Stage

_PACKAGE = "benchmarks.gpu.stages"

STAGES = tuple(
    Stage(name, f"{_PACKAGE}.{measure}", expected_s, limit_s)
    for name, measure, expected_s, limit_s in (
        ("families", "correctness:compare_families", 40, 75),
        ("embedded", "correctness:check_embedded", 20, 45),
        ("options", "options:check", 12, 40),
        ("memory", "correctness:exhaust_memory", 15, 40),
        ("card", "card:measure", 6, 20),
        ("sd15", "unet:SD15.eager", 25, 50),
        ("sd15-graphs", "unet:SD15.graphs", 30, 80),
        ("sd15-served", "unet:SD15.served", 35, 70),
        ("sd15-served-graphs", "unet:SD15.served_graphs", 30, 80),
        ("sdxl", "unet:SDXL.eager", 30, 60),
        ("sdxl-graphs", "unet:SDXL.graphs", 30, 70),
        ("sdxl-served", "unet:SDXL.served", 45, 80),
        ("flux", "flux:eager", 40, 75),
        ("flux-regional", "flux:regional", 35, 90),
        ("flux-fp8", "flux:fp8", 40, 90),
        ("flux-served", "flux:served", 50, 90),
        ("encoders", "encoders:measure", 8, 25),
        ("flux-graphs", "flux:graphs", 25, 60),
        ("sd15-options", "options:measure", 30, 60),
        ("loading", "loading:measure", 25, 60),
    )
)
"""All stages. Expected times and limits are seconds on an H100."""
