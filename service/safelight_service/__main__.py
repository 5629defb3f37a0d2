"""`python -m safelight_service` is the command `safelight-service`."""

from safelight_service.entry import main

main()
