"""Usage metrics: counters of the work for each model and token, for bills."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import astuple

from opentelemetry.metrics import CallbackOptions, Meter, Observation

from safelight_service.core.backend import BackendStats
from safelight_service.core.events import Usage
from safelight_service.core.timeline import Timeline
from safelight_service.telemetry import names

ListAccounts = Callable[[], Iterable[tuple[str, str]]]
"""Lists all models and names of tokens that may use them; called by any thread."""

_COUNTERS = (
    ("image_count", "safelight.images", "{image}", "Images made."),
    ("pixel_count", "safelight.pixels", "{pixel}", "Pixels of the images made."),
    ("step_count", "safelight.steps", "{step}", "Denoising steps made."),
    ("device_time_s", "safelight.device.time", "s", "Time of the devices, by what it was for."),
)


class UsageMetrics:
    """Counts work by model and token; without tokens, the token's name is empty.

    Each account starts at 0, so that its first work shows as an increase.
    """

    def __init__(
        self, meter: Meter, measure: Callable[[], BackendStats], list_accounts: ListAccounts
    ) -> None:
        self._measure = measure
        self._list_accounts = list_accounts
        self._done: defaultdict[tuple[str, str], Usage] = defaultdict(Usage)
        for field, name, unit, description in _COUNTERS:
            meter.create_observable_counter(name, [self._observer_of(field)], unit, description)

    def add(self, timeline: Timeline) -> None:
        """Add the work of an execution that has ended."""
        if timeline.images:
            account = timeline.model, timeline.token
            sums = map(sum, zip(astuple(self._done[account]), astuple(timeline.usage), strict=True))
            self._done[account] = Usage(*sums)

    def _observer_of(self, field: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(_: CallbackOptions) -> Iterable[Observation]:
            for (model, token), value in {**self._zeros(), **self._values(field)}.items():
                yield Observation(value, {names.REQUEST_MODEL: model, names.TOKEN: token})

        return observe

    def _zeros(self) -> Mapping[tuple[str, str], float]:
        return dict.fromkeys(self._list_accounts(), 0)

    def _values(self, field: str) -> Mapping[tuple[str, str], float]:
        if field == "device_time_s":  # known later than the end, and to the device alone
            return self._measure().device_time_s
        return {account: getattr(done, field) for account, done in self._done.copy().items()}
