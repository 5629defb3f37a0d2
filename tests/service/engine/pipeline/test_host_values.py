from collections.abc import Iterator
from typing import Any

import pytest
import torch

from safelight_service.engine import hardware
from safelight_service.engine.merging.fingerprint import fingerprint
from safelight_service.engine.pipeline.host_values import HostValues, known_values
from safelight_service.engine.sampling.noise import Noise
from support.engine.simulated_gpu import DEVICE, SimulatedGpu, simulate_gpu


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimulatedGpu]:
    noise = Noise(torch.Generator(), hardware.pin)
    with simulate_gpu(monkeypatch) as gpu, torch.no_grad(), HostValues(noise):
        yield gpu


def compute() -> torch.Tensor:
    """Return a tensor whose values only the device knows."""
    return torch.empty(3, device=DEVICE).fill_(2.0).normal_()


def test_the_simulation_notes_what_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    with simulate_gpu(monkeypatch) as gpu:
        moved = torch.tensor([1.0, 0.0]).to(DEVICE)
        moved[0].item()
        moved.nonzero()
        assert not torch.equal(moved, moved + 1)
        moved[moved > 0] += 1
        torch.tensor(5, device=DEVICE)
    assert dict(gpu.kinds) == {
        "host to device": 2,
        "local_scalar_dense": 1,
        "nonzero": 3,  # a mask waits once to read, and once to write
        "equal": 1,
    }


def test_the_simulation_refuses_operands_of_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    with simulate_gpu(monkeypatch), pytest.raises(RuntimeError, match="same device"):
        torch.ones(2, device=DEVICE) + torch.ones(2)


def test_what_came_from_the_host_is_read_there(gpu: SimulatedGpu) -> None:
    timesteps = torch.tensor([900.0, 500.0]).to(DEVICE)
    assert [float(timestep) for timestep in timesteps] == [900.0, 500.0]
    assert timesteps[1].item() == 500.0
    assert timesteps.to("cpu").tolist() == [900.0, 500.0]
    assert (timesteps == 500).nonzero().tolist() == [[1]]
    assert bool((timesteps / 1000 < 1).all())
    assert fingerprint(timesteps) == fingerprint(torch.tensor([900.0, 500.0]))
    assert not gpu.waits


def test_a_mask_of_the_host_selects_without_a_wait(gpu: SimulatedGpu) -> None:
    mask = torch.tensor([True, False, True]).to(DEVICE)
    values = compute()
    selected = values[mask]
    parts = torch.split(selected, mask.sum(dim=0, keepdim=True).tolist())
    assert not gpu.waits
    assert parts[0].tolist() == [values.tolist()[place] for place in (0, 2)]


def test_an_index_of_the_device_reads_a_table_of_the_host(gpu: SimulatedGpu) -> None:
    table = torch.arange(10.0)
    timestep = torch.tensor([3]).to(DEVICE)[0]
    assert table[timestep].item() == 3.0
    assert not gpu.waits


def test_what_only_the_device_knows_is_waited_for(gpu: SimulatedGpu) -> None:
    compute()[0].item()
    assert dict(gpu.kinds) == {"local_scalar_dense": 1}


def test_what_was_written_into_is_not_known_any_more(gpu: SimulatedGpu) -> None:
    ids = torch.tensor([1, 2]).to(DEVICE)
    ids.add_(1)
    assert known_values(ids) is None
    assert ids.tolist() == [2, 3]


def test_changes_on_the_host_do_not_change_what_is_known(gpu: SimulatedGpu) -> None:
    ids = torch.tensor([1, 2])
    moved = ids.to(DEVICE)
    ids.fill_(9)
    assert moved.tolist() == [1, 2]


def test_random_values_are_not_taken_for_known(gpu: SimulatedGpu) -> None:
    assert known_values(torch.rand_like(torch.ones(2, device=DEVICE))) is None


def test_data_types_change_alike_on_both_sides(gpu: SimulatedGpu) -> None:
    half = torch.tensor([1 / 3], dtype=torch.float32).to(DEVICE, torch.bfloat16)
    assert half.dtype == torch.bfloat16
    assert half.item() == torch.tensor(1 / 3).bfloat16().item()
    assert torch.tensor([1.7]).to(DEVICE).int().item() == 1
    assert not gpu.waits


def test_weights_are_not_copied_to_pinned_memory(
    gpu: SimulatedGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Offloading moves whole text encoders, which take gigabytes."""
    monkeypatch.setattr(hardware, "pin", lambda tensor: 1 / 0)
    assert torch.nn.Parameter(torch.ones(2)).to(DEVICE).device == DEVICE


def test_noise_has_its_shape_however_that_is_given() -> None:
    generator = torch.Generator()
    expected = torch.randn(2, 3, generator=generator.manual_seed(0))
    with HostValues(Noise(generator, lambda tensor: tensor)):
        generator.manual_seed(0)
        assert torch.equal(torch.randn(2, 3, generator=generator), expected)
        generator.manual_seed(0)
        assert torch.equal(torch.randn((2, 3), generator=generator), expected)
        generator.manual_seed(0)
        assert torch.equal(torch.randn(size=(2, 3), generator=generator), expected)


def test_tensors_are_made_from_known_ones_without_a_wait(gpu: SimulatedGpu) -> None:
    count: Any = torch.tensor([3]).to(DEVICE)[0]
    assert torch.arange(count, device=DEVICE).tolist() == [0, 1, 2]
    assert torch.full((2,), count, device=DEVICE).tolist() == [3, 3]
    assert torch.tensor([count, count + 1], device=DEVICE).tolist() == [3, 4]
    assert torch.as_tensor(count).device == DEVICE
    assert not gpu.waits


def test_a_tensor_that_only_the_device_knows_stays_there(gpu: SimulatedGpu) -> None:
    unknown = compute()
    for made in (torch.as_tensor(unknown), torch.as_tensor(unknown, device=DEVICE)):
        assert made.device == DEVICE
        assert known_values(made) is None
    assert not gpu.waits
