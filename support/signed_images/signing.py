"""Signing: certificates of one test, and C2PA manifests that they sign."""

import datetime
import io
from dataclasses import dataclass
from typing import Any

import c2pa
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
SIGNER = "Test signer, Test studio"
_DAY = datetime.timedelta(days=1)
_SETTINGS = {"builder": {"thumbnail": {"enabled": False}}, "verify": {"verify_after_sign": False}}


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority, and a signer with one of its certificates.

    Attributes:
        anchor: PEM of the authority's certificate.
        chain: PEM of the signer's certificate, then of the authority's.
        key: PEM of the signer's key.
        timestamp_url: URL of a timestamp authority for its signatures.
    """

    anchor: str
    chain: bytes
    key: bytes
    timestamp_url: str | None = None

    def sign(self, image: bytes, mime_type: str, **creation: Any) -> bytes:
        """Return an image with a manifest; `creation` are fields of its action `c2pa.created`."""
        signed = io.BytesIO()
        with self._build(creation) as builder, self._open_signer() as signer:
            builder.sign(signer, mime_type, io.BytesIO(image), signed)
        return signed.getvalue()

    def link(self, image: bytes, mime_type: str, url: str) -> bytes:
        """Return an image that links to its manifest at a URL."""
        linked = io.BytesIO()
        with self._build({}) as builder, self._open_signer() as signer:
            builder.set_no_embed()
            builder.set_remote_url(url)
            builder.sign(signer, mime_type, io.BytesIO(image), linked)
        return linked.getvalue()

    def _open_signer(self) -> c2pa.Signer:
        url = self.timestamp_url
        info = c2pa.C2paSignerInfo(c2pa.C2paSigningAlg.ES256, self.chain, self.key, url)
        return c2pa.Signer.from_info(info)

    def _build(self, creation: dict[str, Any]) -> c2pa.Builder:
        action = {"action": "c2pa.created", "digitalSourceType": SOURCE_TYPE, **creation}
        manifest = {
            "claim_generator_info": [{"name": "Safelight", "version": "1.0"}],
            "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [action]}}],
        }
        return c2pa.Builder(manifest, c2pa.Context(c2pa.Settings.from_dict(_SETTINGS)))


def make_authority() -> Authority:
    """Make an authority, and a signer whose certificate has the key usages that C2PA demands."""
    authority_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority = _name("Test authority")
    anchor = (
        _begin(authority, authority, authority_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
    signer = (
        _begin(_name("Test signer"), authority, key)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False
        )
        .add_extension(issuer, critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    chain = [each.public_bytes(serialization.Encoding.PEM) for each in (signer, anchor)]
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return Authority(chain[1].decode(), b"".join(chain), private)


def _begin(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return (
        x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - _DAY)
        .not_valid_after(now + _DAY)
        .add_extension(identifier, critical=False)
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Test studio"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def _usage(**purposes: bool) -> x509.KeyUsage:
    names = (
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
    return x509.KeyUsage(**{name: purposes.get(name, False) for name in names})
