"""The stages, in their order: first whether the figures can be trusted, then the figures."""

from benchmarks.gpu.driver import Stage

_PACKAGE = "benchmarks.gpu.stages"

STAGES = tuple(
    Stage(name, f"{_PACKAGE}.{measure}", expected_s, limit_s)
    for name, measure, expected_s, limit_s in (
        ("families", "correctness:compare_families", 40, 75),
        ("embedded", "correctness:check_embedded", 20, 45),
        ("memory", "correctness:exhaust_memory", 15, 40),
        ("card", "card:measure", 6, 20),
        ("sd15", "sd15:eager", 25, 50),
        ("sd15-graphs", "sd15:graphs", 30, 80),
        ("sd15-served", "sd15:served", 35, 70),
        ("sd15-served-graphs", "sd15:served_graphs", 30, 80),
        ("sdxl", "sdxl:eager", 30, 60),
        ("sdxl-graphs", "sdxl:graphs", 30, 70),
        ("sdxl-served", "sdxl:served", 45, 80),
        ("flux", "flux:eager", 40, 75),
        ("flux-regional", "flux:regional", 35, 90),
        ("flux-fp8", "flux:fp8", 40, 90),
        ("flux-served", "flux:served", 50, 90),
        ("encoders", "encoders:measure", 8, 25),
        ("flux-graphs", "flux:graphs", 25, 60),
    )
)
"""Estimates and limits in seconds are for an H100."""
