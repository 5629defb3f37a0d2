"""Development certificates: a chain for tests and first steps, which nobody trusts."""

import datetime
import os
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CERTIFICATE, PRIVATE_KEY, AUTHORITY = "certificate.pem", "private_key.pem", "authority.pem"

_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


def write_dev_certificate(
    folder: Path,
    valid_days: int = 365,
    key: CertificateIssuerPrivateKeyTypes | None = None,
    purpose: x509.ObjectIdentifier = ExtendedKeyUsageOID.EMAIL_PROTECTION,
) -> None:
    """Write a certificate, its key, and the authority that signed it, into a folder.

    `key` is a new one of the curve P-256 by default.

    Raises:
        FileExistsError: one of the files exists.
        OSError: the folder cannot be written.
    """
    authority_key = ec.generate_private_key(ec.SECP256R1())
    key = key or ec.generate_private_key(ec.SECP256R1())
    authority_name, name = _name("authority"), _name("signer")
    authority = (
        _describe(authority_name, authority_name, authority_key, valid_days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage("key_cert_sign", "crl_sign"), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    authority_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
    certificate = (
        _describe(name, authority_name, key, valid_days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage("digital_signature"), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=True)
        .add_extension(authority_id, critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / PRIVATE_KEY, secret, mode=0o600)
    _write(folder / CERTIFICATE, certificate.public_bytes(pem))
    _write(folder / AUTHORITY, authority.public_bytes(pem))


def _name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Safelight development"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"Safelight development {common_name}"),
        ]
    )


def _describe(
    subject: x509.Name, issuer: x509.Name, key: CertificateIssuerPrivateKeyTypes, valid_days: int
) -> x509.CertificateBuilder:
    begins_at = datetime.datetime.now(datetime.UTC) - datetime.timedelta(minutes=5)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins_at)
        .not_valid_after(begins_at + datetime.timedelta(days=valid_days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*allowed: str) -> x509.KeyUsage:
    return x509.KeyUsage(**{usage: usage in allowed for usage in _USAGES})


def _write(file: Path, content: bytes, mode: int = 0o644) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with open(descriptor, "wb") as stream:
        stream.write(content)
