"""`python -m safelight_gateway` is the command `safelight-gateway`."""

from safelight_gateway.cli import main

main()
