"""Fuzzing of the request path with atheris, from the bytes of the wire.

As a command, it takes the options of libFuzzer: `-max_total_time=20`, or the file of an earlier
failure.
"""

import sys

import atheris

with atheris.instrument_imports(include=["safelight_service"]):
    from safelight_service.engine.models.loading import load_model
    from safelight_service.settings import EMBEDDED_MODEL, ModelSettings
    from support.engine.tiny_models import MERGING
    from tests.service.grpc_server.request_path import take


def main() -> None:
    """Fuzz until the options stop it, or until an unexpected failure."""
    model = load_model(ModelSettings(name=EMBEDDED_MODEL, source=EMBEDDED_MODEL), MERGING)

    def take_one(data: bytes) -> None:
        take(data, model)

    atheris.Setup(sys.argv, take_one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
