"""Telemetry of several engines on one machine."""

import asyncio

from safelight_service.fleet.engine_observer import open_engine_observer
from safelight_service.settings import RaySettings, Settings


def test_each_engine_of_a_machine_has_a_port_for_prometheus() -> None:
    async def main() -> None:
        first = open_engine_observer(Settings(ray=RaySettings(prometheus_listen="127.0.0.1:0")))
        assert first is not None
        taken = first.prometheus_address
        second = open_engine_observer(Settings(ray=RaySettings(prometheus_listen=taken)))
        assert second is not None
        assert second.prometheus_address not in (None, taken)
        await asyncio.gather(first.close(), second.close())

    asyncio.run(main())


def test_the_address_of_the_fronts_is_not_for_engines() -> None:
    settings = Settings.model_validate({"telemetry": {"prometheus_listen": "127.0.0.1:1"}})
    assert open_engine_observer(settings) is None
