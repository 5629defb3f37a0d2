"""Address: HOST:PORT that a program listens on."""

import re
from typing import Annotated

from pydantic import AfterValidator

_ADDRESS = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^:\[\]\s]+):(\d{1,5})")


def _check_address(listen: str) -> str:
    match = _ADDRESS.fullmatch(listen)
    if not match or int(match[2]) > 65535:
        raise ValueError(f"must be HOST:PORT with a port from 0 to 65535, not {listen!r}")
    return listen


Address = Annotated[str, AfterValidator(_check_address)]
"""HOST:PORT to listen on; an IPv6 host in brackets."""
