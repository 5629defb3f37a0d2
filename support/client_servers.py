"""Servers for tests of clients in other languages.

Prints their addresses as a line of JSON, and runs until its standard input ends.
"""

import json
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import trustme

from safelight_service.auth.tokens import digest_token
from support.running_envoy import run_envoy
from support.running_gateway import run_gateway
from support.running_service import prepare_services, run_service

_TOKEN = "secret"


def main() -> None:
    """Run a plain service, with Envoy and the gateway before it, and one with TLS and tokens."""
    prepare_services()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder, authority = Path(name), trustme.CA()
        issued = authority.issue_cert("localhost")
        certificate, key, tokens = (
            folder / each for each in ("cert.pem", "key.pem", "tokens.toml")
        )
        certificate.write_bytes(issued.cert_chain_pems[0].bytes())
        key.write_bytes(issued.private_key_pem.bytes())
        tokens.write_text(f'[[tokens]]\nname = "test"\nsha256 = "{digest_token(_TOKEN)}"\n')
        service = stack.enter_context(run_service())
        secured = stack.enter_context(
            run_service(
                tokens_file=str(tokens),
                tls=json.dumps({"certificate": str(certificate), "private_key": str(key)}),
            )
        )
        envoy = stack.enter_context(run_envoy(folder, service.target))
        gateway = stack.enter_context(run_gateway(service.target))
        addresses = {
            "service": service.target,
            "secured": f"localhost:{secured.target.rpartition(':')[2]}",
            "authority": authority.cert_pem.bytes().decode(),
            "token": _TOKEN,
            "envoy": f"http://{envoy.address}",
            "gateway": gateway.url,
        }
        print(json.dumps(addresses), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
