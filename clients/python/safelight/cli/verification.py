"""The command `verify`: claims of image files about their origin."""

import json as json_format
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from safelight.cli.exits import ExitCode
from safelight.provenance import Manifest, ManifestState, Verification, check_trust_anchors
from safelight.provenance import verify as verify_image

EPILOG = """
Exit codes: 0 the manifest of each file is valid, and with --trust-anchors its signer trusted;
1 another state, or a file that cannot be read; 2 invalid arguments.
""".replace("\n", " ")

_STATES = {
    ManifestState.TRUSTED: "valid, and its signer is trusted",
    ManifestState.VALID: "valid, but its signer may be anybody: no trust anchor vouches for them",
    ManifestState.INVALID: "INVALID: the claims do not belong to this image",
    ManifestState.REMOTE: "elsewhere, and not fetched",
    ManifestState.ABSENT: "none: nothing is signed",
    ManifestState.UNCHECKED: "cannot be checked: pip install 'safelight[provenance]'",
}


def verify(
    files: Annotated[list[Path], typer.Argument(help="PNG, JPEG or WebP files.")],
    trust_anchors: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="PEM file with certificates; a signer is trusted if one of them vouches for it.",
        ),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print a line of JSON for each file.")
    ] = False,
) -> None:
    """Show the claims of images about their origin, and whether signatures back them.

    Nothing is fetched from the network.
    """
    anchors = _read_anchors(trust_anchors)
    wanted = {ManifestState.TRUSTED} if anchors else {ManifestState.VALID, ManifestState.TRUSTED}
    code = ExitCode.DONE
    for file in files:
        try:
            verification = verify_image(file, trust_anchors=anchors)
        except (OSError, ValueError) as error:
            message = error.strerror if isinstance(error, OSError) else error
            record: dict[str, object] = {"error": str(message)}
            lines = [f"error: {message}"]
            code = ExitCode.FAILED
        else:
            record = verification.as_record()
            lines = list(_describe(verification))
            if verification.manifest.state not in wanted:
                code = ExitCode.FAILED
        if json:
            print(json_format.dumps({"path": str(file), **record}), flush=True)
        else:
            print(_printable(str(file)), *(f"  {_printable(line)}" for line in lines), sep="\n")
    raise typer.Exit(code)


def _read_anchors(file: Path | None) -> str | None:
    if file is None:
        return None
    try:
        anchors = file.read_text()
        check_trust_anchors(anchors)
    except (OSError, ValueError) as error:
        raise typer.BadParameter(str(error)) from error
    return anchors


def _describe(verification: Verification) -> Iterator[str]:
    """Yield lines about the claims."""
    manifest, metadata = verification.manifest, verification.metadata
    yield f"manifest: {_STATES[manifest.state]}"
    for problem in manifest.problems:
        yield f"problem: {problem}"
    claims = (
        ("signer", manifest.signer),
        ("signed at", manifest.signed_at and _describe_time(manifest)),
        ("created at", manifest.created_at),
        ("software", manifest.software),
        ("model", manifest.model),
        ("source type", manifest.source_type),
        ("unsigned software", metadata.software),
        ("unsigned model", metadata.model),
        ("unsigned source type", metadata.source_type),
        ("unsigned parameters", metadata.parameters),
        ("unsigned claims", metadata.problem and f"cannot be read: {metadata.problem}"),
    )
    for name, claim in claims:
        if claim is not None:
            yield f"{name}: {claim}"


def _describe_time(manifest: Manifest) -> str:
    authority = "a trusted authority" if manifest.is_time_trusted else "an unknown authority"
    return f"{manifest.signed_at}, by {authority}"


def _printable(text: str) -> str:
    """Return a text of an image without what could move the cursor or hide other text."""
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)
