"""The built-in dialects: one module per line, each with a `DIALECT`."""

from importlib import import_module

from safelight_gateway.dialects.dialect import Dialect

_MODULES = (
    "hf_inference",  # first: Hugging Face's clients default to the first provider
    "fal",
    "nebius",
    "replicate",
    "together",
    "openai",
    "hub",
)

DIALECTS: tuple[Dialect, ...] = tuple(
    import_module(f"{__package__}.{name}").DIALECT for name in _MODULES
)
