"""`python -m safelight_service` is the command `safelight-service`."""

from safelight_service.cli import main

main()
