"""TLS: the service's certificates, reloaded when their files change."""

import ssl
from pathlib import Path

import grpc

from safelight_service.auth.reloading import Reloaded
from safelight_service.settings import ConfigurationError, TlsSettings


def server_credentials(settings: TlsSettings) -> grpc.ServerCredentials:
    """Return credentials that present the last valid version of the files to new connections.

    Raises:
        ConfigurationError: the files cannot be used.
    """
    files = [settings.certificate, settings.private_key, settings.client_authorities]
    certificates = Reloaded(lambda: _read(settings), [file for file in files if file is not None])
    shown = certificates.get()

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        """Return the certificates, or None if they have not changed."""
        nonlocal shown
        before, shown = shown, certificates.get()
        return None if shown is before else shown

    return grpc.dynamic_ssl_server_credentials(
        shown,
        fetch,  # type: ignore[arg-type] # the stubs lack None
        require_client_authentication=settings.client_authorities is not None,
    )


def peer_credentials(settings: TlsSettings, authorities: Path | None) -> grpc.ChannelCredentials:
    """Return credentials for calls to the other services of a fleet.

    Presents the service's own certificate, if clients need one.

    Raises:
        ConfigurationError: a file cannot be read.
    """
    roots = None if authorities is None else _read_file("authorities", authorities, "fleet")
    if settings.client_authorities is None:
        return grpc.ssl_channel_credentials(roots)
    return grpc.ssl_channel_credentials(
        roots,
        _read_file("private_key", settings.private_key),
        _read_file("certificate", settings.certificate),
    )


def _read(settings: TlsSettings) -> grpc.ServerCertificateConfiguration:
    chain = _read_file("certificate", settings.certificate)
    key = _read_file("private_key", settings.private_key)
    authorities = None
    if settings.client_authorities is not None:
        authorities = _read_file("client_authorities", settings.client_authorities)
    _check(settings)
    return grpc.ssl_server_certificate_configuration([(key, chain)], authorities)


def _read_file(setting: str, file: Path, table: str = "tls") -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigurationError(
            f"{table}.{setting}: cannot read {file}: {error.strerror}"
        ) from None


def _check(settings: TlsSettings) -> None:
    """Check the files; gRPC would refuse bad ones without a reason."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # An empty password, or OpenSSL would ask for one on the terminal.
        context.load_cert_chain(settings.certificate, settings.private_key, password="")
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            "tls: certificate and private_key must be PEM files that belong together, the key "
            f"without a passphrase: {error}"
        ) from None
    if settings.client_authorities is not None:
        try:
            context.load_verify_locations(settings.client_authorities)
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"tls.client_authorities: must be PEM: {error}") from None
