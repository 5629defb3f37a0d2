from collections.abc import Iterator

import pytest
import torch

from safelight_service.engine.compilation.compile_watch import CompileWatch
from support.thread_clock import set_clock


@pytest.fixture
def watch() -> Iterator[CompileWatch]:
    watch = CompileWatch()
    yield watch
    watch.close()


def test_time_in_which_torch_compiles_does_not_count(
    watch: CompileWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The backend of this test takes an hour to compile, by the test's clock."""
    now = 1000.0
    set_clock(monkeypatch, lambda: now)
    seen: list[float] = []

    def compile_slowly(graph: torch.fx.GraphModule, _: object) -> object:
        nonlocal now
        now += 3600
        seen.append(watch.seconds_since(1000.0))
        return graph.forward

    double = torch.compile(lambda x: x * 2, backend=compile_slowly)
    assert watch.seconds_since(990.0) == 10.0
    assert double(torch.ones(2)).tolist() == [2.0, 2.0]
    assert seen == [0.0]
    now += 5
    assert watch.seconds_since(1000.0) == 5.0
    assert watch.seconds_since(now - 1) == 1.0
    torch._dynamo.reset()
