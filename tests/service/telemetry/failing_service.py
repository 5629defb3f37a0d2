"""Failing service: its denoiser fails on images of one size."""

from typing import Any

from safelight_service import cli
from safelight_service.engine import engine
from safelight_service.engine.models import loading

WIDTH, HEIGHT = 104, 64


def load_failing(*arguments: Any, **options: Any) -> Any:
    model = loading.load_model(*arguments, **options)

    def fail(_: Any, positional: tuple[Any, ...], named: dict[str, Any]) -> None:
        sample = named["sample"] if "sample" in named else positional[0]
        if sample.shape[-1] * HEIGHT == sample.shape[-2] * WIDTH:
            raise ValueError("of the shape that fails")

    model.denoiser.register_forward_pre_hook(fail, with_kwargs=True)
    return model


if __name__ == "__main__":
    vars(engine).update(load_model=load_failing)
    cli.main()
