"""Origin: what made an image."""

from dataclasses import dataclass

from safelight_service.core.request import ResolvedRequest

SOFTWARE = "Safelight"

SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
"""IPTC's name for media that a trained model has made."""


@dataclass(frozen=True, slots=True)
class Origin:
    """The model, the request and the seed of an image."""

    model: str
    revision: str
    """Revision of the model; empty if it has none."""
    request: ResolvedRequest
    seed: int
    sampler: str
    """Name of the scheduler in AUTOMATIC1111's web UI."""
