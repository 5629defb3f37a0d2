"""The metadata of an image: unsigned claims, which anyone could have written."""

import io
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

if TYPE_CHECKING:
    import PIL.Image

FORMATS = {"image/png": "PNG", "image/jpeg": "JPEG", "image/webp": "WEBP"}
"""Pillow's name of each format, by MIME type."""

_MAX_XMP_BYTES = 2**20
_EXIF_IFD, _USER_COMMENT = 0x8769, 0x9286
_IPTC = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}"
_MODEL = (f"{_IPTC}AISystemUsed", f"{_IPTC}AISystemVersionUsed")
_XMP = "{http://ns.adobe.com/xap/1.0/}"
_RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """Claims in XMP, EXIF and PNG text; None where there are none.

    Attributes:
        source_type: IPTC digital source type, a URI that ends in `trainedAlgorithmicMedia` for
            generated images.
        software: Program that made the image.
        model: Model that made it.
        parameters: Prompt and parameters, as AUTOMATIC1111's web UI writes them.
        problem: Reason why none could be read, such as damage.
    """

    source_type: str | None = None
    software: str | None = None
    model: str | None = None
    parameters: str | None = None
    problem: str | None = None


def read_metadata(data: bytes, mime_type: str) -> Metadata:
    """Return the metadata of an image. The pixels are not decoded."""
    import PIL.Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of damaged metadata, and of many pixels
        try:
            with PIL.Image.open(io.BytesIO(data), formats=[FORMATS[mime_type]]) as image:
                return _read(image)
        except PIL.UnidentifiedImageError:  # whose text names a Python object
            return Metadata(problem="the file is damaged")
        except Exception as error:  # Pillow's readers raise errors of any kind
            return Metadata(problem=str(error) or type(error).__name__)


def _read(image: "PIL.Image.Image") -> Metadata:
    claims: dict[str, str] = {}
    for name, text in _read_xmp(image.info.get("xmp", b"")):
        claims.setdefault(name, text)  # ingredients come later
    return Metadata(
        source_type=claims.get(f"{_IPTC}DigitalSourceType"),
        software=claims.get(f"{_XMP}CreatorTool"),
        model=" ".join(claims[name] for name in _MODEL if name in claims) or None,
        parameters=image.info.get("parameters") or _read_user_comment(image.info),
    )


def _read_xmp(packet: bytes) -> Iterator[tuple[str, str]]:
    """Yield the simple properties of an XMP packet: qualified name and text."""
    text = packet.decode("utf-8", "replace").strip("\0")
    # XMP has no DOCTYPE, whose entities could expand without bound.
    if "<!DOCTYPE" in text or len(packet) > _MAX_XMP_BYTES:
        return
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError:
        return
    for element in root.iter():
        yield from element.attrib.items()
        value = element.get(f"{_RDF}resource") or (element.text or "").strip()
        if value:
            yield element.tag, value


def _read_user_comment(info: Mapping[Any, Any]) -> str | None:
    import PIL.Image

    exif = PIL.Image.Exif()  # getexif of a PNG would decode the pixels
    exif.load(info.get("exif", b""))
    comment = exif.get_ifd(_EXIF_IFD).get(_USER_COMMENT)
    if not isinstance(comment, bytes):
        return comment or None
    code, text = comment[:8], comment[8:]
    encoding = "utf-8"
    if code.startswith(b"UNICODE"):
        # EXIF leaves the byte order open: the zeros of ASCII characters tell it.
        is_big = text[::2].count(0) >= text[1::2].count(0)
        encoding = "utf-16-be" if is_big else "utf-16-le"
    return text.decode(encoding, "replace").strip("\0") or None
