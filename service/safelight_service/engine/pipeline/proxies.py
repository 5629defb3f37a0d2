"""Proxies: stand in for a pipeline's heavy modules, so that others decide when these run.

A pipeline runs on a shallow copy of its own, with a proxy in place of its denoiser, its VAE
and each of its text encoders. Everything goes through to the module but the calls, and what
would move or cast it: others use it at the same time.
"""

import contextlib
import copy
import functools
from collections.abc import Callable, Iterator
from typing import Any, Self

import torch
from torch import Tensor

from safelight_service.engine.batching.collation import fingerprint
from safelight_service.engine.pipeline.prompt_cache import Memo

_CHANGES = frozenset(
    {"to", "cpu", "cuda", "xpu", "type", "half", "float", "double", "bfloat16", "train", "eval"}
)
"""Methods of modules that change them, and return them."""


class _Proxy:
    def __init__(self, module: Any) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return self._stay if name in _CHANGES else getattr(self._module, name)

    def _stay(self, *_: Any, **__: Any) -> Self:
        """Leave the module as it is."""
        return self


class DenoiserProxy(_Proxy):
    """A denoiser whose forwards are handed to `run`, as the arguments of the call."""

    def __init__(self, denoiser: Any, run: Callable[..., Any]) -> None:
        super().__init__(denoiser)
        self._run = run

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Have the forward run."""
        return self._run(*args, **kwargs)

    @functools.cached_property
    def dtype(self) -> torch.dtype:
        """The module's own property walks all its parameters, and is read at every step."""
        dtype: torch.dtype = self._module.dtype
        return dtype

    @contextlib.contextmanager
    def cache_context(self, name: str) -> Iterator[None]:
        """Do nothing: the state of a cache in the module would be that of all generations."""
        yield

    def _reset_stateful_cache(self, recurse: bool = True) -> None:
        """Do nothing, for the same reason: pipelines call it when they have ended."""


class VaeProxy(_Proxy):
    """A VAE whose decoding is handed to `run`: the latents, and what decodes them."""

    def __init__(
        self,
        vae: Any,
        run: Callable[[Tensor, Callable[[], Any]], Any],
        dtype: torch.dtype | None = None,
    ) -> None:
        """Report `dtype` until the pipeline casts it: the VAE may have been cast before.

        So pipelines scale latents in the precision that they would cast the VAE to.
        """
        super().__init__(vae)
        self._run = run
        self._dtype = dtype

    @property
    def dtype(self) -> torch.dtype:
        """The precision that the pipeline finds."""
        dtype: torch.dtype = self._dtype or self._module.dtype
        return dtype

    def to(self, *_: Any, **__: Any) -> Self:
        """Leave the module as it is, and report its precision from now on."""
        self._dtype = None
        return self

    def decode(self, latents: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Have the decoding run, in the precision of the VAE, which may be another."""
        latents = latents.to(self._module.dtype)
        return self._run(latents, functools.partial(self._module.decode, latents, *args, **kwargs))


class TextEncoderProxy(_Proxy):
    """A text encoder that does not encode twice what it remembers."""

    def __init__(self, text_encoder: Any, name: str, memo: Memo) -> None:
        super().__init__(text_encoder)
        self._name = name
        self._memo = memo

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return the encoder's output, which callers may set attributes of but not write into."""
        key = self._name, fingerprint(args), fingerprint(kwargs)
        return copy.copy(self._memo.get(key, lambda: self._module(*args, **kwargs)))


def wrap_text_encoders(pipeline: Any, memo: Memo) -> dict[str, TextEncoderProxy]:
    """Make proxies for a pipeline's text encoders, by the names of the components."""
    return {
        name: TextEncoderProxy(module, name, memo)
        for name, module in pipeline.components.items()
        if name.startswith("text_encoder") and isinstance(module, torch.nn.Module)
    }


class PipelineCopies:
    """Makes shallow copies of a pipeline: the modules are shared, the attributes are not.

    A copy knows which device it runs on; the original looks that up among its modules, all of
    them, each time it is asked.
    """

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline
        original = type(pipeline)
        known = {"_execution_device": pipeline._execution_device, "device": pipeline.device}
        self._class = type(original.__name__, (original,), known)

    def make(self, **attributes: Any) -> Any:
        """Copy the pipeline, with other components and attributes in place of its own."""
        duplicate = copy.copy(self._pipeline)
        duplicate.__class__ = self._class
        # Past diffusers' __setattr__, which would look a proxy's class up as a component.
        vars(duplicate).update(attributes)
        return duplicate
