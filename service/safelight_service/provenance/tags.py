"""Tags: the metadata of an image file, by its format."""

import struct
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import quoteattr

import PIL.Image
from PIL import ExifTags, TiffTags
from PIL.PngImagePlugin import PngInfo

from safelight_service.provenance.origin import SOFTWARE, SOURCE_TYPE

_XMP = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\
<x:xmpmeta xmlns:x="adobe:ns:meta/">\
<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">\
<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" \
xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"{attributes}/>\
</rdf:RDF></x:xmpmeta><?xpacket end="r"?>"""

_COMMENT_AS_BYTE, _COMMENT_AS_UNDEFINED = (
    struct.pack(">HH", ExifTags.Base.UserComment, kind)
    for kind in (TiffTags.BYTE, TiffTags.UNDEFINED)
)
"""The tag and its type, as in the directory of the EXIF block."""

_MAX_JPEG_EXIF = 65_000
"""Bytes; a segment of a JPEG holds 65,533."""


@dataclass(frozen=True, slots=True)
class Tags:
    """Metadata of an image: that it is generated, by which model, and how.

    `parameters` is the text of the generation's parameters; empty leaves it out, as does a JPEG
    if it is longer than a segment. `model` and `revision` are empty if unknown.
    """

    parameters: str = ""
    model: str = ""
    revision: str = ""

    @property
    def xmp(self) -> bytes:
        """The XMP packet, in UTF-8."""
        facts = {
            "xmp:CreatorTool": SOFTWARE,
            "Iptc4xmpExt:DigitalSourceType": SOURCE_TYPE,
            "Iptc4xmpExt:AISystemUsed": self.model,
            "Iptc4xmpExt:AISystemVersionUsed": self.revision,
        }
        attributes = (f" {name}={quoteattr(fact)}" for name, fact in facts.items() if fact)
        return _XMP.format(attributes="".join(attributes)).encode()

    def save_options(self, mime_type: str) -> dict[str, Any]:
        """Return the arguments with which Pillow writes them into a file of that format."""
        if mime_type == "image/png":
            return {"pnginfo": self._png_text()}
        exif = self._exif()
        if mime_type == "image/jpeg" and len(exif) > _MAX_JPEG_EXIF:
            exif = Tags()._exif()
        return {"xmp": self.xmp, "exif": exif}

    def _png_text(self) -> PngInfo:
        text = PngInfo()
        if self.parameters:
            text.add_text("parameters", self.parameters)
        text.add_text("Software", SOFTWARE)
        text.add_itxt("XML:com.adobe.xmp", self.xmp)
        return text

    def _exif(self) -> bytes:
        exif = PIL.Image.Exif()
        exif.endian = ">"  # as that of the comment, by which readers guess
        exif[ExifTags.Base.Software] = SOFTWARE
        if self.parameters:
            comment = b"UNICODE\0" + self.parameters.encode("utf-16-be")
            exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = comment
        # Pillow gives the comment the type BYTE, which strict readers refuse.
        return exif.tobytes().replace(_COMMENT_AS_BYTE, _COMMENT_AS_UNDEFINED, 1)
