"""Library variables: environment variables that libraries read on import."""

from collections.abc import Mapping

QUIET = {
    "TRANSFORMERS_VERBOSITY": "error",
    "DIFFUSERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    # Its handler would print a stack on SIGTERM, and keep a front from stopping in order.
    "RAY_DISABLE_FAILURE_SIGNAL_HANDLER": "1",
    "GRPC_VERBOSITY": "NONE",  # its threads write to standard error themselves, and would block
}
"""Variables that silence libraries."""
_ALLOCATORS = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
"""Variables of torch's allocator; the second is the name before torch 2.9."""


def choose_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return library variables to set, without those that the operator has set."""
    chosen = dict(QUIET)
    if not any(name in environment for name in _ALLOCATORS):
        # Forwards of varying widths would otherwise fragment GPU memory.
        chosen[_ALLOCATORS[0]] = "expandable_segments:True"
    return {name: value for name, value in chosen.items() if name not in environment}
