"""The caller's names of fields in errors of the service."""

import pytest
from safelight import FieldViolation

from safelight_gateway.errors import GatewayError, invalid_fields
from safelight_gateway.generation.field_names import FieldNames

NAMES = FieldNames(
    names={"inputs": "idea", "image_count": "num_outputs", "parameters.width": "image_size"},
    parts={"parameters.width": "width"},
)


@pytest.mark.parametrize(
    ("names", "path", "message"),
    [
        (NAMES, "inputs", "idea: must be so"),
        (NAMES, "image_count", "num_outputs: must be so"),
        (NAMES, "parameters.width", "image_size: width must be so"),
        (NAMES, "parameters.seed", "seed: must be so"),
        (FieldNames(), "inputs", "prompt: must be so"),
        (FieldNames(), "image_count", "n: must be so"),
        (FieldNames(), "preview.interval_steps", "partial_images: must be so"),
        (FieldNames(), "output.quality", "output_quality: must be so"),
    ],
)
def test_field_is_named_as_the_caller_did(names: FieldNames, path: str, message: str) -> None:
    error = invalid_fields([FieldViolation(path, "must be so"), FieldViolation(path, "it is")])
    renamed = names.rename(error)
    field = message.partition(":")[0]
    assert renamed.message.startswith(f"{message}; {field}: ")
    assert [violation.field for violation in renamed.violations] == [field, field]
    assert (renamed.status, renamed.reason) == (error.status, error.reason)


def test_error_without_fields_stays_as_it_is() -> None:
    error = GatewayError(429, "later", "QUEUE_FULL", retry_after_s=2.0)
    assert NAMES.rename(error) is error
