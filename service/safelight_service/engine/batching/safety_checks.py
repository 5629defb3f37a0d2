"""Safety checks: one for all waiting images of a model and a size."""

from collections.abc import Hashable, Iterable, Sequence

import torch

from safelight_service.engine.batching.accounts.busy_clock import BusyClock
from safelight_service.engine.image_run import ImageRun
from safelight_service.engine.operations import SafetyCheck
from safelight_service.engine.pipeline.safety_check import Verdicts


def group_alike(images: Iterable[ImageRun]) -> Iterable[Sequence[ImageRun]]:
    """Group the images that wait for a safety check by their models and sizes."""
    alike: dict[Hashable, list[ImageRun]] = {}
    for image in images:
        if isinstance(image.operation, SafetyCheck):
            alike.setdefault((image.job.model, image.operation.images.shape), []).append(image)
    return alike.values()


def flag(images: Sequence[ImageRun], busy: BusyClock) -> list[Verdicts | Exception]:
    """Check a group; return the verdicts of each image, or the error that it raises.

    A check that fails is repeated for each image alone.
    """
    busy.start()
    checker = images[0].job.model.safety_checker
    assert checker is not None
    try:
        checks = [image.operation_as(SafetyCheck) for image in images]
        verdicts = checker.check(torch.cat([check.images for check in checks]))
        return [Verdicts(*each) for each in zip(*verdicts, strict=True)]
    except Exception as error:
        if len(images) == 1:
            return [error]
    return [flag([image], busy)[0] for image in images]
