"""Fuzzing of the request path by atheris: bytes, as they come from the wire.

Run as a command, it takes the options of libFuzzer: `-max_total_time=20`, or a file that it has
left of a failure.
"""

import sys

import atheris

with atheris.instrument_imports(include=["safelight_service"]):
    from safelight_service.engine.models.loading import load_model
    from safelight_service.settings import EMBEDDED_MODEL, ModelSettings
    from support.engine.tiny_models import MERGING
    from tests.service.grpc_server.request_path import take


def main() -> None:
    """Run until told to stop, or until something fails that must not."""
    model = load_model(ModelSettings(name=EMBEDDED_MODEL, source=EMBEDDED_MODEL), MERGING)

    def take_one(data: bytes) -> None:
        take(data, model)

    atheris.Setup(sys.argv, take_one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
