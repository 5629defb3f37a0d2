"""Validation: checks a request and fills in the defaults.

Checks every rule, so that the error lists all violations at once.
"""

import math
import re
import secrets
from collections.abc import Callable, Collection

from safelight_service.core.errors import FieldViolation, InvalidRequestError, quote
from safelight_service.core.model import Capabilities
from safelight_service.core.request import (
    GenerationRequest,
    ResolvedAdapter,
    ResolvedOutput,
    ResolvedParameters,
    ResolvedPreview,
    ResolvedRequest,
)

OUTPUT_MIME_TYPES = ("image/png", "image/jpeg", "image/webp")
PREVIEW_MIME_TYPES = ("image/jpeg", "image/webp")
MAX_SEED = 2**63 - 1
MAX_LINGER_S = 3600
"""The contract's own limit."""
_MAX_ADAPTERS = 16
"""The contract's own limit."""
_MAX_LISTED = 20
"""Most adapters that a refusal lists."""
_DEFAULT_QUALITY = 95
_DEFAULT_PREVIEW_SIDE_PX = 256
_MIN_PREVIEW_SIDE_PX, _MAX_PREVIEW_SIDE_PX = 16, 512
_GENERATION_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")

TokenCounter = Callable[[str], int]
"""Returns the number of tokens of a prompt, by the model's tokenizer."""


def resolve(
    request: GenerationRequest,
    capabilities: Capabilities,
    count_tokens: TokenCounter,
    max_linger_s: float = MAX_LINGER_S,
) -> ResolvedRequest:
    """Check every field of a request, and fill in the model's defaults.

    Raises:
        InvalidRequestError: fields break their rules; the error lists all of them.
    """
    return _Resolver(request, capabilities, count_tokens, max_linger_s).resolve()


class _Resolver:
    """Rules, one method a field; each records violations and returns a value."""

    def __init__(
        self,
        request: GenerationRequest,
        capabilities: Capabilities,
        count_tokens: TokenCounter,
        max_linger_s: float,
    ) -> None:
        self._request = request
        self._capabilities = capabilities
        self._count_tokens = count_tokens
        self._max_linger_s = max_linger_s
        self._violations: list[FieldViolation] = []

    def resolve(self) -> ResolvedRequest:
        self._check_generation_id()
        self._check_linger()
        inputs = self._check_prompt("inputs", self._request.inputs, is_required=True)
        self._check_supported()
        image_count = self._resolve_image_count()
        parameters = self._resolve_parameters(image_count)
        resolved = ResolvedRequest(
            inputs=inputs,
            parameters=parameters,
            image_count=image_count,
            output=self._resolve_output(),
            preview=self._resolve_preview(max(parameters.width, parameters.height)),
            adapters=self._resolve_adapters(),
        )
        if self._violations:
            raise InvalidRequestError(self._violations)
        return resolved

    def _refuse(self, field: str, description: str) -> None:
        self._violations.append(FieldViolation(field, description))

    def _check_range(self, field: str, value: int, low: int, high: int) -> int:
        if not low <= value <= high:
            self._refuse(field, f"must be from {low} to {high}, not {value}")
        return value

    def _check_choice(self, field: str, value: str, choices: tuple[str, ...]) -> str:
        if value not in choices:
            self._refuse(field, f"must be one of {', '.join(choices)}, not {quote(value)}")
        return value

    def _check_generation_id(self) -> None:
        generation_id = self._request.generation_id
        if generation_id and not _GENERATION_ID.fullmatch(generation_id):
            self._refuse("generation_id", "must be 1 to 128 letters, digits and -_.:")

    def _check_linger(self) -> None:
        linger_s, limit_s = self._request.linger_s, self._max_linger_s
        if not 0 <= linger_s <= limit_s:
            self._refuse("linger", f"must be from 0 to {limit_s:g} s, not {linger_s:g} s")

    def _check_supported(self) -> None:
        supported = self._capabilities.supported_parameters
        for name in type(self._request.parameters).__slots__:
            if getattr(self._request.parameters, name) is not None and name not in supported:
                self._refuse(
                    f"parameters.{name}",
                    f"is not supported by this model, which takes: {', '.join(supported)}",
                )

    def _check_prompt(self, field: str, prompt: str, *, is_required: bool) -> str:
        limits = self._capabilities.limits
        if is_required and not prompt.strip():
            self._refuse(field, "must not be empty")
        elif len(prompt) > limits.max_prompt_character_count:
            self._refuse(
                field,
                f"must have at most {limits.max_prompt_character_count} characters, "
                f"not {len(prompt)}",
            )
        elif (
            limits.max_prompt_token_count is not None
            and (tokens := self._count_tokens(prompt)) > limits.max_prompt_token_count
        ):
            self._refuse(
                field,
                f"must have at most {limits.max_prompt_token_count} tokens of this model, "
                f"not {tokens}",
            )
        return prompt

    def _resolve_image_count(self) -> int:
        count = 1 if self._request.image_count is None else self._request.image_count
        return self._check_range("image_count", count, 1, self._capabilities.limits.max_image_count)

    def _resolve_parameters(self, image_count: int) -> ResolvedParameters:
        guidance_scale = self._resolve_guidance_scale()
        width, height = self._resolve_size()
        scheduler = self._resolve_scheduler()
        return ResolvedParameters(
            guidance_scale=guidance_scale,
            negative_prompt=self._resolve_negative_prompt(guidance_scale),
            num_inference_steps=self._resolve_steps(scheduler),
            width=width,
            height=height,
            scheduler=scheduler,
            seed=self._resolve_seed(image_count),
            step_reuse=self._resolve_step_reuse(),
        )

    def _resolve_steps(self, scheduler: str) -> int:
        steps = self._request.parameters.num_inference_steps
        if steps is None:
            steps = self._capabilities.defaults.num_inference_steps
        most = self._capabilities.limits.max_step_count
        for info in self._capabilities.schedulers:
            if scheduler in (info.name, *info.aliases) and info.max_step_count is not None:
                most = min(most, info.max_step_count)
        return self._check_range("parameters.num_inference_steps", steps, 1, most)

    def _resolve_guidance_scale(self) -> float | None:
        scale = self._request.parameters.guidance_scale
        if scale is None:
            return self._capabilities.defaults.guidance_scale
        limit = self._capabilities.limits.max_guidance_scale
        if not (math.isfinite(scale) and 0 <= scale <= limit):
            self._refuse("parameters.guidance_scale", f"must be from 0 to {limit:g}, not {scale}")
        return scale

    def _resolve_step_reuse(self) -> float | None:
        share = self._request.parameters.step_reuse
        if share is None:
            return self._capabilities.defaults.step_reuse
        limit = self._capabilities.limits.max_step_reuse
        if not 0 <= share <= limit:
            self._refuse("parameters.step_reuse", f"must be from 0 to {limit:g}, not {share:g}")
        return share

    def _resolve_negative_prompt(self, guidance_scale: float | None) -> str | None:
        prompt = self._request.parameters.negative_prompt
        if not prompt:
            return None
        if guidance_scale is not None and guidance_scale <= 1:
            self._refuse(
                "parameters.negative_prompt",
                "has no effect unless guidance_scale is above 1; raise it or leave this out",
            )
        return self._check_prompt("parameters.negative_prompt", prompt, is_required=False)

    def _resolve_size(self) -> tuple[int, int]:
        asked, defaults = self._request.parameters, self._capabilities.defaults
        width = defaults.width if asked.width is None else asked.width
        height = defaults.height if asked.height is None else asked.height
        limits = self._capabilities.limits
        sides_are_valid = True
        for field, side in (("parameters.width", width), ("parameters.height", height)):
            in_range = limits.min_side_px <= side <= limits.max_side_px
            if not in_range or side % limits.size_multiple_px:
                sides_are_valid = False
                self._refuse(
                    field,
                    f"must be a multiple of {limits.size_multiple_px} between "
                    f"{limits.min_side_px} and {limits.max_side_px}, not {side}",
                )
        if sides_are_valid and width * height > limits.max_pixel_count:
            self._refuse(
                "parameters.width" if asked.width is not None else "parameters.height",
                f"width times height must be at most {limits.max_pixel_count}, "
                f"not {width} x {height} = {width * height}",
            )
        return width, height

    def _resolve_scheduler(self) -> str:
        name = self._request.parameters.scheduler
        if name is None:
            return self._capabilities.defaults.scheduler
        schedulers = self._capabilities.schedulers
        aliases = tuple(alias for scheduler in schedulers for alias in scheduler.aliases)
        return self._check_choice(
            "parameters.scheduler", name, (*aliases, *(scheduler.name for scheduler in schedulers))
        )

    def _resolve_seed(self, image_count: int) -> int:
        seed = self._request.parameters.seed
        if seed is None:
            open_seed = self._request.open_seed
            return secrets.randbelow(2**32) if open_seed is None else open_seed
        # Image i uses seed + i, which must be a valid seed too.
        highest = MAX_SEED - max(image_count - 1, 0)
        return self._check_range("parameters.seed", seed, 0, highest)

    def _resolve_adapters(self) -> tuple[ResolvedAdapter, ...]:
        infos = {info.name: info for info in self._capabilities.adapters}
        resolved: dict[str, ResolvedAdapter] = {}
        count = len(self._request.adapters)
        if count and not infos:
            self._refuse("adapters", "must be empty, since this model has none")
            return ()
        if count > _MAX_ADAPTERS:
            self._refuse("adapters", f"must be at most {_MAX_ADAPTERS}, not {count}")
            return ()
        names: set[str] = set()
        for index, use in enumerate(self._request.adapters):
            info, field = infos.get(use.name), f"adapters[{index}]"
            scale = info.default_scale if info and use.scale is None else use.scale
            if use.name in names:
                self._refuse(f"{field}.name", "must not be that of an earlier adapter")
            elif info is None:
                # The status has room for one list and one quotation.
                is_first = names <= infos.keys()
                choice = _list_names(infos, use.name) if is_first else "the model's adapters"
                self._refuse(f"{field}.name", f"must be one of {choice}")
            elif scale is None or not info.min_scale <= scale <= info.max_scale:
                bounds = f"from {info.min_scale:g} to {info.max_scale:g}"
                self._refuse(f"{field}.scale", f"must be {bounds}, not {scale:g}")
            else:
                resolved[use.name] = ResolvedAdapter(use.name, scale)
            names.add(use.name)
        return tuple(resolved.values())

    def _resolve_output(self) -> ResolvedOutput:
        output = self._request.output
        mime_type = self._check_choice(
            "output.mime_type", output.mime_type or OUTPUT_MIME_TYPES[0], OUTPUT_MIME_TYPES
        )
        if mime_type == "image/png":
            if output.quality is not None:
                self._refuse(
                    "output.quality", "applies to image/jpeg and image/webp only; PNG is lossless"
                )
            return ResolvedOutput(mime_type, None)
        quality = _DEFAULT_QUALITY if output.quality is None else output.quality
        return ResolvedOutput(mime_type, self._check_range("output.quality", quality, 1, 100))

    def _resolve_preview(self, longest_side_px: int) -> ResolvedPreview | None:
        preview = self._request.preview
        mime_type = self._check_choice(
            "preview.mime_type", preview.mime_type or PREVIEW_MIME_TYPES[0], PREVIEW_MIME_TYPES
        )
        side = preview.max_side_px
        if side is None:
            side = min(_DEFAULT_PREVIEW_SIDE_PX, longest_side_px)
        else:
            self._check_range(
                "preview.max_side_px", side, _MIN_PREVIEW_SIDE_PX, _MAX_PREVIEW_SIDE_PX
            )
        if preview.interval_steps < 0:
            self._refuse(
                "preview.interval_steps", f"must be 0 or more, not {preview.interval_steps}"
            )
        if preview.interval_steps > 0 and not self._capabilities.has_previews:
            self._refuse("preview.interval_steps", "must be 0: this model has no previews")
        if preview.interval_steps <= 0:
            return None
        return ResolvedPreview(preview.interval_steps, mime_type, side)


def _list_names(names: Collection[str], instead: str) -> str:
    """Return the names that are allowed, as many as a status has room for, and the other one."""
    more = ", ..." if len(names) > _MAX_LISTED else ""
    return f"{', '.join(list(names)[:_MAX_LISTED])}{more}, not {quote(instead)}"
