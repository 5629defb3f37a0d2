"""Run `safelight-gateway` as `python -m safelight_gateway`."""

from safelight_gateway.cli import main

main()
