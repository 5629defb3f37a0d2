"""Simulated fleet: merging engines in simulated time, to compare routers over hours in seconds.

Each engine works as `MergingEngine` does, but a step takes the longer, the more pixels it has. The
router knows the steps that all images have left at each moment.
"""

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from safelight_service.fleet.routing import Lane, Load, Loads, Route, add, lane_of, rank
from support.fleet.merging_engine import MERGED_COST

Size = tuple[int, int]
Router = Callable[[Mapping[str, Loads], Route], str]
"""Returns the name of an engine, of those with these loads."""

MAX_WIDTH = 8
STEP_COUNT = 20


def choose_least_cost(hosts: Mapping[str, Loads], route: Route) -> str:
    """Choose as the product does."""
    return rank(hosts, route)[0]


def choose_fewest_calls(hosts: Mapping[str, Loads], route: Route) -> str:
    """Choose the one of two random engines with fewer calls, as Serve does by default."""
    pair = random.sample(sorted(hosts), 2)
    return min(pair, key=lambda name: sum(count for count, _ in hosts[name].values()))


def make_round_robin() -> Router:
    """Return a router that chooses one engine after another."""
    turns = itertools.count()
    return lambda hosts, route: sorted(hosts)[next(turns) % len(hosts)]


@dataclass(frozen=True, slots=True)
class Traffic:
    """Requests of one image each, at random moments."""

    sizes: Mapping[Size, float]
    """Weight of each size, in pixels."""
    step_s: float
    """Time of a step of one image of the first size, alone."""

    def draw(self, rng: random.Random) -> Size:
        """Return the size of the next request."""
        return rng.choices(list(self.sizes), list(self.sizes.values()))[0]


@dataclass(slots=True)
class Call:
    """A request on its way."""

    size: Size
    called_at: float
    left: int = STEP_COUNT
    ended_at: float = 0.0
    image_count: int = 0
    """Images of all its forwards."""

    @property
    def latency_s(self) -> float:
        """Seconds from the call to its end."""
        return self.ended_at - self.called_at


@dataclass(slots=True)
class _Engine:
    lanes: dict[Lane, deque[Call]] = field(default_factory=dict)
    """Calls that wait for a step; the next lane comes first."""
    batch: list[Call] = field(default_factory=list)
    """Calls whose step is made."""

    def find_loads(self) -> Loads:
        loads: dict[Lane, Load] = {}
        for call in itertools.chain(self.batch, *self.lanes.values()):
            add(loads, _lane_of(call), 1, call.left)
        return loads

    def wait(self, call: Call) -> None:
        self.lanes.setdefault(_lane_of(call), deque()).append(call)

    def begin(self) -> None:
        lane = next(iter(self.lanes))
        waiting = self.lanes.pop(lane)
        self.batch = [waiting.popleft() for _ in range(min(MAX_WIDTH, len(waiting)))]
        if waiting:
            self.lanes[lane] = waiting


class SimulatedFleet:
    """Engines behind one router."""

    def __init__(self, engine_count: int, traffic: Traffic, router: Router, seed: int = 0) -> None:
        self._engines = {f"engine{number}": _Engine() for number in range(engine_count)}
        self._traffic, self._router = traffic, router
        self._rng = random.Random(seed)
        self._pixel_s = traffic.step_s / _pixels_of(next(iter(traffic.sizes)))
        self._moments: list[tuple[float, int, str]] = []
        """Times at which an engine ends a step, or, without a name, a request comes."""
        self._order = itertools.count()
        self._ended: list[Call] = []

    def run_closed(self, caller_count: int, seconds: float) -> float:
        """Return the requests per second that callers without a pause get."""
        for _ in range(caller_count):
            self._plan(0.0)
        ended: Sequence[Call] = self._run(seconds, lambda now: now if now < seconds else None)
        return sum(call.ended_at <= seconds for call in ended) / seconds

    def run_open(self, rate: float, seconds: float) -> Sequence[Call]:
        """Return the requests that come at `rate` a second, at random moments."""
        arrivals = random.Random(1)
        moment = 0.0
        while (moment := moment + arrivals.expovariate(rate)) < seconds:
            self._plan(moment)
        return self._run(seconds, lambda now: None)

    def _run(self, seconds: float, find_next: Callable[[float], float | None]) -> Sequence[Call]:
        random.seed(0)  # the product's router draws from it
        while self._moments:
            now, _, name = heapq.heappop(self._moments)
            if not name:
                call = Call(self._traffic.draw(self._rng), now)
                loads = {name: engine.find_loads() for name, engine in self._engines.items()}
                name = self._router(loads, Route(_lane_of(call), step_count=STEP_COUNT))
                self._engines[name].wait(call)
                if self._engines[name].batch:
                    continue
            else:
                for _ in self._finish_step(self._engines[name], now):
                    following = find_next(now)
                    if following is not None:
                        self._plan(following)
            self._begin_step(name, now)
        return self._ended

    def _finish_step(self, engine: _Engine, now: float) -> list[Call]:
        """Return the calls that end."""
        batch, engine.batch = engine.batch, []
        ended = []
        for call in batch:
            call.left -= 1
            call.image_count += len(batch)
            if call.left:
                engine.wait(call)
            else:
                call.ended_at = now
                ended.append(call)
        self._ended += ended
        return ended

    def _begin_step(self, name: str, now: float) -> None:
        engine = self._engines[name]
        if engine.lanes:
            engine.begin()
            width = len(engine.batch)
            alone_s = _pixels_of(engine.batch[0].size) * self._pixel_s
            self._plan(now + alone_s * (1 + MERGED_COST * (width - 1)), name)

    def _plan(self, moment: float, name: str = "") -> None:
        heapq.heappush(self._moments, (moment, next(self._order), name))


def _lane_of(call: Call) -> Lane:
    return lane_of("model", *call.size)


def _pixels_of(size: Size) -> int:
    width, height = size
    return width * height
