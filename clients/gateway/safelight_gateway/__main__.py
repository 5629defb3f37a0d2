"""Run `safelight-gateway` as `python -m safelight_gateway`."""

from safelight_gateway.entry import main

main()
