"""PipelineAdapter: parameters of a diffusers pipeline, found in its signature and configs."""

import copy
import inspect
import math
from typing import Any

import torch
from diffusers import DiffusionPipeline

from safelight_service.core.model import Capabilities, Defaults, Limits
from safelight_service.core.request import ResolvedRequest
from safelight_service.engine.pipeline.prompt_tokens import PromptTokens
from safelight_service.engine.sampling.schedulers import SchedulerChoice
from safelight_service.settings import DefaultSettings, LimitSettings

_DENOISERS = ("transformer", "unet")
_REQUIRED_ARGUMENTS = ("prompt", "height", "width", "num_inference_steps", "generator")
_FOREIGN_ARGUMENTS = (
    "image",
    "strength",
    "mask_image",
    "control_image",
    "controlnet_conditioning_scale",
    "num_frames",
)
"""Arguments of pipelines for other tasks, such as image to image or video."""

_MAY_TAKE_IMAGE = ("Flux2Pipeline", "Flux2KleinPipeline", "FluxKontextPipeline")
"""Pipelines whose `image` is optional."""

_COMMON_MULTIPLE_PX = 8
"""Multiple that most pipelines require of a side, in addition to the denoiser's patch."""


class UnsupportedPipelineError(Exception):
    """The pipeline is not an ordinary text-to-image pipeline; the message says why."""


def find_denoiser_name(pipeline: Any) -> str:
    """Return the name of the denoising component.

    Raises:
        UnsupportedPipelineError: the pipeline has none.
    """
    for name in _DENOISERS:
        if getattr(pipeline, name, None) is not None:
            return name
    raise UnsupportedPipelineError(
        f"{type(pipeline).__name__} has neither of: {', '.join(_DENOISERS)}"
    )


class PipelineAdapter:
    """Maps the contract's parameters to the arguments of one pipeline."""

    def __init__(
        self, pipeline: DiffusionPipeline, limits: LimitSettings, defaults: DefaultSettings
    ) -> None:
        self.pipeline: Any = pipeline
        self._arguments = inspect.signature(type(pipeline).__call__).parameters
        self._check_task()
        self.denoiser_name = find_denoiser_name(pipeline)
        self.denoiser: Any = getattr(pipeline, self.denoiser_name)
        self.execution_device: torch.device = self.pipeline._execution_device
        self.schedulers = SchedulerChoice(
            self.pipeline.scheduler, type(pipeline), limits.max_step_count
        )
        self._tokens = PromptTokens(pipeline, self._arguments)
        self._has_true_cfg = "true_cfg_scale" in self._arguments
        self._has_distilled_guidance = bool(self._denoiser_config("guidance_embeds", False))
        is_distilled = self.pipeline.config.get("is_distilled", False)  # FLUX.2-klein
        self._takes_guidance = "guidance_scale" in self._arguments and not is_distilled
        self._limits = self._find_limits(limits)
        self._defaults = self._find_defaults(defaults)

    def capabilities(self, *, has_previews: bool) -> Capabilities:
        """Return the parameters, schedulers and limits of the pipeline.

        Raises:
            UnsupportedPipelineError: the defaults break the limits.
        """
        self._check_defaults()
        return Capabilities(
            pipeline_class=type(self.pipeline).__name__,
            supported_parameters=self._supported_parameters(),
            defaults=self._defaults,
            schedulers=self.schedulers.list(),
            limits=self._limits,
            has_previews=has_previews,
            device_type=self.execution_device.type,
        )

    def count_tokens(self, prompt: str) -> int:
        """Return the number of tokens of a prompt, special ones included."""
        return self._tokens.count(prompt)

    def pipeline_arguments(self, request: ResolvedRequest) -> dict[str, Any]:
        """Return the arguments of the pipeline, except the generator."""
        parameters = request.parameters
        arguments: dict[str, Any] = {
            "prompt": request.inputs,
            "width": parameters.width,
            "height": parameters.height,
            "num_inference_steps": parameters.num_inference_steps,
            "output_type": "pt",
        }
        if parameters.guidance_scale is not None:
            arguments |= self._guidance_arguments(
                parameters.guidance_scale, parameters.negative_prompt
            )
        if parameters.negative_prompt is not None:
            arguments["negative_prompt"] = parameters.negative_prompt
        if "use_resolution_binning" in self._arguments:
            arguments["use_resolution_binning"] = False  # would denoise another size and resize
        if "clean_caption" in self._arguments:
            arguments["clean_caption"] = False  # would rewrite the prompt
        return arguments

    def pipeline_attributes(self, request: ResolvedRequest) -> dict[str, Any]:
        """Return settings that the pipeline reads from its attributes instead of arguments."""
        area = request.parameters.width * request.parameters.height
        # HiDream scales every size to the area of this square, and rounds down: add a little.
        side = math.sqrt(area) / self.pipeline.vae_scale_factor * (1 + 1e-6)
        return {"default_sample_size": side}

    def _guidance_arguments(self, scale: float, negative_prompt: str | None) -> dict[str, Any]:
        name = self._guidance_argument(negative_prompt)
        if name == "true_cfg_scale" and scale > 1:
            # These pipelines skip guidance without a negative prompt, and advise a blank.
            return {name: scale, "negative_prompt": " "}
        if scale <= 1 and self._is_guided_below_one():
            return {name: 0.0}
        return {name: scale}

    def _guidance_argument(self, negative_prompt: str | None) -> str:
        """Return the name of the family's guidance argument.

        If `true_cfg_scale` exists, it is classifier-free guidance; `guidance_scale` is then a
        distilled substitute, embedded by the denoiser, without a negative prompt.
        """
        if self._has_true_cfg and (negative_prompt is not None or not self._has_distilled_guidance):
            return "true_cfg_scale"
        return "guidance_scale"

    def _is_guided_below_one(self) -> bool:
        """Whether only 0 turns guidance off, as in Z-Image; elsewhere 1 does."""
        probe = copy.copy(self.pipeline)
        vars(probe)["_guidance_scale"] = 0.5
        return bool(getattr(probe, "do_classifier_free_guidance", False))

    def _supported_parameters(self) -> tuple[str, ...]:
        optional = ["guidance_scale"] if self._takes_guidance else []
        embeds_guidance = self._denoiser_config("time_cond_proj_dim", None) is not None
        if "negative_prompt" in self._arguments and not embeds_guidance:
            optional.append("negative_prompt")
        reuse = ["step_reuse"] if self._limits.max_step_reuse else []
        return (*optional, "num_inference_steps", "width", "height", "scheduler", "seed", *reuse)

    def _check_task(self) -> None:
        """Raise UnsupportedPipelineError for pipelines of other tasks than text to image."""
        name = type(self.pipeline).__name__
        missing = [name for name in _REQUIRED_ARGUMENTS if name not in self._arguments]
        if missing:
            raise UnsupportedPipelineError(f"{name} does not take {', '.join(missing)}")
        foreign = [argument for argument in _FOREIGN_ARGUMENTS if argument in self._arguments]
        if foreign and not (name in _MAY_TAKE_IMAGE and foreign == ["image"]):
            raise UnsupportedPipelineError(
                f"{name} is not for text to image alone: it takes {', '.join(foreign)}"
            )
        for component in ("scheduler", "vae"):
            if getattr(self.pipeline, component, None) is None:
                raise UnsupportedPipelineError(f"{name} has no {component}")
        scheduler = self.pipeline.scheduler
        if _scales_noise(type(self.pipeline)) and not hasattr(scheduler, "init_noise_sigma"):
            raise UnsupportedPipelineError(
                f"scheduler: {name} does not work with a {type(scheduler).__name__}, which is for "
                "flow matching; set components.scheduler to a folder with another one"
            )

    def _check_defaults(self) -> None:
        """Raise UnsupportedPipelineError for defaults that break the limits."""
        limits, defaults = self._limits, self._defaults
        for name, side in (("width", defaults.width), ("height", defaults.height)):
            in_range = limits.min_side_px <= side <= limits.max_side_px
            if not in_range or side % limits.size_multiple_px:
                raise UnsupportedPipelineError(
                    f"the default {name} must be a multiple of {limits.size_multiple_px} "
                    f"between {limits.min_side_px} and {limits.max_side_px}, not {side}; "
                    "set defaults or limits"
                )
        for name, value, most in (
            ("width times height", defaults.width * defaults.height, limits.max_pixel_count),
            ("num_inference_steps", defaults.num_inference_steps, limits.max_step_count),
            ("guidance_scale", defaults.guidance_scale or 0, limits.max_guidance_scale),
            ("step_reuse", defaults.step_reuse or 0, limits.max_step_reuse),
        ):
            if value > most:
                raise UnsupportedPipelineError(
                    f"the default {name} must be at most {most}, not {value}; "
                    "set defaults or limits"
                )
        schedulers = self.schedulers.list()
        names = [name for info in schedulers for name in (info.name, *info.aliases)]
        if defaults.scheduler not in names:
            fault = self.schedulers.faults.get(defaults.scheduler)
            raise UnsupportedPipelineError(
                f"the default scheduler must be one of {', '.join(names)}, "
                f"not {defaults.scheduler!r}"
                + (f": {defaults.scheduler} {fault}; set defaults.scheduler" if fault else "")
            )

    def _denoiser_config(self, key: str, default: Any) -> Any:
        return self.denoiser.config.get(key, default)

    def _find_defaults(self, settings: DefaultSettings) -> Defaults:
        guidance_scale = settings.guidance_scale
        if not self._takes_guidance:
            guidance_scale = None
        elif guidance_scale is None:
            guidance_scale = self._argument_default(self._guidance_argument(None))
        return Defaults(
            guidance_scale=guidance_scale,
            num_inference_steps=settings.num_inference_steps
            or self._argument_default("num_inference_steps"),
            width=settings.width or self._default_side("width", 1),
            height=settings.height or self._default_side("height", 0),
            scheduler=settings.scheduler or self.schedulers.default,
            step_reuse=settings.step_reuse
            if settings.step_reuse or self._limits.max_step_reuse
            else None,
        )

    def _argument_default(self, name: str) -> Any:
        return self._arguments[name].default

    def _default_side(self, name: str, axis: int) -> int:
        side = self._argument_default(name)
        if side is None:
            cells = getattr(self.pipeline, "default_sample_size", None)
            if cells is None:
                cells = self._denoiser_config("sample_size", None)
            if isinstance(cells, list | tuple):
                cells = cells[axis]
            side = 1024 if cells is None else cells * self.pipeline.vae_scale_factor
        return int(side)

    def _find_limits(self, settings: LimitSettings) -> Limits:
        patch = self._patch_px()
        multiple = math.lcm(patch, _COMMON_MULTIPLE_PX)
        max_side, max_pixel_count = settings.max_side_px, settings.max_pixel_count
        positions: Any = getattr(self.denoiser, "pos_embed", None)
        if getattr(positions, "pos_embed_max_size", None) is not None:
            # SD3 and AuraFlow crop the positions of a picture from a square.
            max_side = min(max_side, math.isqrt(positions.pos_embed.shape[1]) * patch)
        if hasattr(self.denoiser, "max_seq"):  # HiDream pads patches to this number
            max_pixel_count = min(max_pixel_count, self.denoiser.max_seq * patch**2)
        return Limits(
            min_side_px=-(-settings.min_side_px // multiple) * multiple,
            max_side_px=max_side // multiple * multiple,
            size_multiple_px=multiple,
            max_pixel_count=max_pixel_count,
            max_step_count=settings.max_step_count,
            max_guidance_scale=settings.max_guidance_scale,
            max_image_count=settings.max_image_count,
            max_prompt_token_count=self._tokens.max_count,
            max_prompt_character_count=settings.max_prompt_character_count,
            max_step_reuse=settings.max_step_reuse,
        )

    def _patch_px(self) -> int:
        """Return the side of a denoiser's patch in pixels."""
        if hasattr(self.pipeline, "_pack_latents"):
            patch = 2
        else:
            patch = self._denoiser_config("patch_size", None)
            if patch is None:
                patch = self._denoiser_config("all_patch_size", 1)
            if isinstance(patch, list | tuple):
                patch = max(patch)
        return int(self.pipeline.vae_scale_factor) * int(patch)


def _scales_noise(pipeline_class: Any) -> bool:
    """Whether a pipeline scales its first noise, which schedulers of flow matching do not know."""
    prepare = getattr(pipeline_class, "prepare_latents", None)
    return prepare is not None and "init_noise_sigma" in inspect.unwrap(prepare).__code__.co_names
