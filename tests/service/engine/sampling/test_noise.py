import torch

from safelight_service.engine.sampling.noise import Noise

SHAPE = torch.Size([1, 4, 8, 8])


def make_noise(pinned: list[torch.Tensor] | None = None) -> Noise:
    def pin(tensor: torch.Tensor) -> torch.Tensor:
        if pinned is not None:
            pinned.append(tensor)
        return tensor

    return Noise(torch.Generator().manual_seed(7), pin)


def expect(*shapes: torch.Size) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    return [torch.randn(shape, generator=generator) for shape in shapes]


def test_noise_is_that_of_the_generator() -> None:
    noise = make_noise()
    drawn = [noise.draw(SHAPE, torch.float32) for _ in range(3)]
    assert all(map(torch.equal, drawn, expect(SHAPE, SHAPE, SHAPE)))


def test_noise_of_the_next_step_is_there_before_it_is_asked_for() -> None:
    pinned: list[torch.Tensor] = []
    noise = make_noise(pinned)
    noise.draw(SHAPE, torch.float32)
    noise.end_step()
    noise.draw_ahead()
    assert len(pinned) == 2
    noise.draw_ahead()
    ahead = noise.draw(SHAPE, torch.float32)
    assert len(pinned) == 2
    assert torch.equal(ahead, expect(SHAPE, SHAPE)[1])


def test_values_do_not_depend_on_what_was_drawn_ahead() -> None:
    other = torch.Size([2, 3])
    noise = make_noise()
    noise.draw(SHAPE, torch.float32)
    noise.end_step()
    noise.draw_ahead()
    assert torch.equal(noise.draw(other, torch.float32), expect(SHAPE, other)[1])


def test_a_step_without_noise_is_followed_by_no_draw_ahead() -> None:
    pinned: list[torch.Tensor] = []
    noise = make_noise(pinned)
    noise.draw(SHAPE, torch.float32)
    noise.end_step()
    noise.end_step()
    noise.draw_ahead()
    assert len(pinned) == 1
