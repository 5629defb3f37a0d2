"""Proxies: stand in for a pipeline's heavy modules, so that the batcher decides when they run.

Each image has a shallow copy of the pipeline, with proxies in place of the denoiser, the VAE and
the text encoders. A proxy passes attributes on to its module, but intercepts calls. It ignores
methods that would move or cast the module, which other images use at the same time.
"""

import contextlib
import copy
import functools
from collections.abc import Callable, Iterator
from typing import Any, Self

import torch
from torch import Tensor

from safelight_service.engine.lora.lora import NO_ADAPTERS, Mixture
from safelight_service.engine.lora.mixer import Mixer
from safelight_service.engine.merging.fingerprint import fingerprint
from safelight_service.engine.pipeline.prompt_cache import Memo

_CHANGES = frozenset(
    {"to", "cpu", "cuda", "xpu", "type", "half", "float", "double", "bfloat16", "train", "eval"}
)
"""Methods that change a module in place, and return it."""


class _Proxy:
    def __init__(self, module: Any) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return self._stay if name in _CHANGES else getattr(self._module, name)

    def _stay(self, *_: Any, **__: Any) -> Self:
        """Ignore the change."""
        return self


class DenoiserProxy(_Proxy):
    """A denoiser that passes the arguments of its forwards to `run`."""

    def __init__(self, denoiser: Any, run: Callable[..., Any]) -> None:
        super().__init__(denoiser)
        self._run = run

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return the output of `run`."""
        return self._run(*args, **kwargs)

    @functools.cached_property
    def dtype(self) -> torch.dtype:
        """Data type of the module, cached: the module's own property walks all parameters."""
        dtype: torch.dtype = self._module.dtype
        return dtype

    @contextlib.contextmanager
    def cache_context(self, name: str) -> Iterator[None]:
        """Do nothing: a cache in the module would mix up all images."""
        yield

    def _reset_stateful_cache(self, recurse: bool = True) -> None:
        """Do nothing, for the same reason."""


class VaeProxy(_Proxy):
    """A VAE that passes its latents and a function that decodes them to `run`."""

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
        """Return the output of `run` on latents in the VAE's own precision."""
        latents = latents.to(self._module.dtype)
        return self._run(latents, functools.partial(self._module.decode, latents, *args, **kwargs))


class TextEncoderProxy(_Proxy):
    """A text encoder with a memo of its outputs.

    Each scope has outputs of its own: a prompt that is encoded in no time would otherwise show
    callers that another one has sent it.
    """

    def __init__(
        self,
        text_encoder: Any,
        name: str,
        memo: Memo,
        scope: str = "",
        mixture: Mixture = NO_ADAPTERS,
        mixer: Mixer | None = None,
    ) -> None:
        super().__init__(text_encoder)
        self._name = name
        self._memo = memo
        self._mixer = mixer or Mixer(name, text_encoder)
        self._scope = scope
        self._mixture = mixture

    def forget_adapters(self) -> None:
        """Release the copies of adapters that the last calls used; safe to call from any thread."""
        self._mixer.forget()

    def within(self, scope: str, mixture: Mixture = NO_ADAPTERS) -> Self:
        """Return a proxy for the callers of a scope, which applies adapters."""
        return type(self)(self._module, self._name, self._memo, scope, mixture, self._mixer)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return a shallow copy of the output; callers must not write into its shared tensors."""
        recipe = self._mixture.recipe(self._name)
        key = self._scope, self._name, recipe, fingerprint(args), fingerprint(kwargs)
        return copy.copy(self._memo.get(key, lambda: self._encode(*args, **kwargs)))

    def _encode(self, *args: Any, **kwargs: Any) -> Any:
        with self._mixer.applied([self._mixture], [1]):
            return self._module(*args, **kwargs)


def wrap_text_encoders(pipeline: Any, memo: Memo) -> dict[str, TextEncoderProxy]:
    """Make proxies for a pipeline's text encoders, by component name."""
    return {
        name: TextEncoderProxy(module, name, memo)
        for name, module in pipeline.components.items()
        if name.startswith("text_encoder") and isinstance(module, torch.nn.Module)
    }


class PipelineCopies:
    """Makes shallow copies of a pipeline, which share its modules but not its attributes.

    A copy caches its device, which the original's property searches among all modules.
    """

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline
        original = type(pipeline)
        known = {"_execution_device": pipeline._execution_device, "device": pipeline.device}
        self._class = type(original.__name__, (original,), known)

    def make(self, **attributes: Any) -> Any:
        """Copy the pipeline, and replace some of its components and attributes."""
        duplicate = copy.copy(self._pipeline)
        duplicate.__class__ = self._class
        # Bypass diffusers' __setattr__, which would register a proxy as a component.
        vars(duplicate).update(attributes)
        return duplicate
