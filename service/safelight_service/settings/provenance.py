"""Settings of how images are marked as generated."""

from pydantic import Field, ValidationInfo, field_validator

from safelight_settings import ConfigPath, Table


class ProvenanceSettings(Table):
    """How images are marked as generated. PEM files are reread when they change."""

    certificate: ConfigPath | None = Field(
        None,
        description="Certificate for C2PA manifests, followed by its intermediates. Needs the "
        "extra `provenance`. Unset: images are marked, but not signed.",
    )
    private_key: ConfigPath | None = Field(
        None, description="Key of the certificate, without a passphrase."
    )
    signer_command: tuple[str, ...] = Field(
        (),
        description="Program and arguments that sign in place of `private_key`, for keys in "
        "hardware. It reads the bytes to sign from standard input, and writes the signature to "
        "standard output within 10 seconds.",
    )
    timestamp_url: str | None = Field(
        None,
        pattern="^https?://",
        description="URL of an RFC 3161 timestamp authority. Its timestamps keep signatures valid "
        "after the certificate has expired. While it fails, images are signed without them.",
    )
    include_parameters: bool = Field(
        True,
        description="Write the prompts and parameters into images, as AUTOMATIC1111's web UI does.",
    )
    include_prompts: bool = Field(False, description="Write the prompts into signed manifests.")
    required: bool = Field(
        False,
        description="Never send an unsigned image: a generation fails if signing fails. Otherwise "
        "the image is sent unsigned, and not kept in the result cache.",
    )

    @field_validator("signer_command")
    @classmethod
    def _check_key(cls, command: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if not {"certificate", "private_key"} <= info.data.keys():
            return command  # one of them is wrong, and reported separately
        key_count = (info.data["private_key"] is not None) + bool(command)
        if info.data["certificate"] is None and key_count:
            raise ValueError("private_key and signer_command need a certificate")
        if info.data["certificate"] is not None and key_count != 1:
            raise ValueError("set either private_key or signer_command with a certificate")
        return command

    @field_validator("required")
    @classmethod
    def _check_required(cls, required: bool, info: ValidationInfo) -> bool:
        if required and info.data.get("certificate", "") is None:
            raise ValueError("needs a certificate")
        return required
