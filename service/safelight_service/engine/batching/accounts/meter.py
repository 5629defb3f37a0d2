"""Meter: measures the work of one device, and charges its seconds to the jobs that share it.

A span of work is charged once the device has finished it: at its end on a CPU, up to two steps
later on a GPU. No charge makes the device thread wait for a GPU.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from safelight_service.core.events import Event
from safelight_service.engine.batching.accounts.fair_shares import FairShares
from safelight_service.engine.batching.accounts.late_turns import LateTurns
from safelight_service.engine.hardware import NoteSeconds, RunAhead, Span
from safelight_service.engine.job import Job


class Meter:
    """Device seconds by job, by tenant, and by model and token.

    Used by the device thread only, except where noted.
    """

    def __init__(self) -> None:
        self.shares = FairShares()
        self.late_turns = LateTurns()
        self._run_ahead = RunAhead()
        self._seconds: defaultdict[tuple[str, str], float] = defaultdict(float)

    @property
    def seconds(self) -> Mapping[tuple[str, str], float]:
        """Seconds since the start, by model and token. For any thread."""
        return self._seconds.copy()

    def begin(self, rows: Sequence[tuple[Job, int]], note: NoteSeconds) -> Span:
        """Begin a span of work for the rows of some jobs; once its seconds are known, call `note`.

        The jobs share the seconds by their rows.
        """
        counts: Counter[Job] = Counter()
        for job, row_count in rows:
            counts[job] += row_count
        parts = {job: count / counts.total() for job, count in counts.items()}

        def account(seconds: float) -> None:
            for job, part in parts.items():
                self._charge(job, seconds * part)
            note(seconds)

        model = rows[0][0].model
        return self._run_ahead.begin(model.adapter.execution_device, account, model, parts)

    def end(self, span: Span) -> None:
        """End a span of work."""
        self._run_ahead.end(span)

    def settle(self, job: Job) -> None:
        """Give a job that has made its images the seconds that the device has not reported yet.

        Its relay waits for them in an encoder thread, as for the pixels, which the same work makes.
        """
        job.is_settled = True
        left = [(span, span.parts[job]) for span in self._run_ahead.unfinished if job in span.parts]
        if left:
            job.relay.post(job.encoders.submit(_add, job, left))

    def end_step(self, *, is_last: bool) -> None:
        """Wait for the device to finish the previous step, or all its work."""
        if is_last:
            self._run_ahead.catch_up()
            self.shares.clear()
            self.late_turns.clear()
        else:
            self._run_ahead.end_step()

    def _charge(self, job: Job, seconds: float) -> None:
        self.shares.charge(job.tenant, seconds)
        self.late_turns.charge(job, seconds)
        self._seconds[job.model.name, job.timeline.token] += seconds
        if not job.is_settled:
            job.timeline.device_time_s += seconds


def _add(job: Job, left: Sequence[tuple[Span, float]]) -> Event | None:
    job.timeline.device_time_s += sum(span.measure() * part for span, part in left)
    return None
