"""The caller's names of fields, for errors that name the contract's."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from safelight import FieldViolation

from safelight_gateway.errors import GatewayError, invalid_fields

_PARAMETERS = "parameters."
_DEFAULTS = {
    "inputs": "prompt",
    "image_count": "n",
    "output.mime_type": "output_format",
    "output.quality": "output_quality",
    "preview.interval_steps": "partial_images",
}
_RULE = "must "


@dataclass(frozen=True, slots=True)
class FieldNames:
    """The caller's name for each field of the contract.

    Attributes:
        names: Maps paths such as `parameters.width`. Other fields keep their last name.
        parts: Maps paths to their part of the caller's field, such as the width of a size.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    parts: Mapping[str, str] = field(default_factory=dict)

    def rename(self, error: GatewayError) -> GatewayError:
        """Return an error of the service in the caller's names."""
        if not error.violations:
            return error
        renamed = invalid_fields([self._rename(violation) for violation in error.violations])
        return replace(error, message=renamed.message, violations=renamed.violations)

    def _rename(self, violation: FieldViolation) -> FieldViolation:
        path, description = violation.field, violation.description
        name = self.names.get(path) or _DEFAULTS.get(path) or path.removeprefix(_PARAMETERS)
        if path in self.parts and description.startswith(_RULE):
            description = f"{self.parts[path]} {description}"
        return FieldViolation(name, description)
