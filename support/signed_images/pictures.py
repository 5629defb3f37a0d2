"""Pictures with metadata, in all formats."""

import io

import PIL.Image
from PIL.PngImagePlugin import PngInfo

from safelight_service.provenance.origin import SOURCE_TYPE

PARAMETERS = "a café\nSteps: 4, Sampler: Euler a, Seed: 7"
SOFTWARE, MODEL = "Safelight 1.0", "shapes r1"
FORMATS = {"image/png": "PNG", "image/jpeg": "JPEG", "image/webp": "WEBP"}
"""Pillow's name of each MIME type."""

_EXIF_IFD, _USER_COMMENT = 0x8769, 0x9286
XMP = f"""<x:xmpmeta xmlns:x="adobe:ns:meta/">
<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/"
  xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
  xmp:CreatorTool="{SOFTWARE}">
<Iptc4xmpExt:DigitalSourceType>{SOURCE_TYPE}</Iptc4xmpExt:DigitalSourceType>
<Iptc4xmpExt:AISystemUsed>shapes</Iptc4xmpExt:AISystemUsed>
<Iptc4xmpExt:AISystemVersionUsed>r1</Iptc4xmpExt:AISystemVersionUsed>
</rdf:Description></rdf:RDF></x:xmpmeta>"""


def draw(
    mime_type: str, *, xmp: str = XMP, encoding: str = "utf-16-be", side_px: int = 64
) -> bytes:
    """Return a picture with XMP and parameters.

    Args:
        mime_type: MIME type of the picture.
        xmp: Its XMP packet; may be empty.
        encoding: Encoding of the parameters in EXIF.
        side_px: Width and height in pixels.
    """
    picture = PIL.Image.linear_gradient("L").resize((side_px, side_px)).convert("RGB")
    drawn = io.BytesIO()
    if mime_type == "image/png":
        text = PngInfo()
        text.add_text("parameters", PARAMETERS)
        if xmp:
            text.add_itxt("XML:com.adobe.xmp", xmp)
        picture.save(drawn, "PNG", pnginfo=text)
    else:
        exif = PIL.Image.Exif()
        exif.get_ifd(_EXIF_IFD)[_USER_COMMENT] = b"UNICODE\0" + PARAMETERS.encode(encoding)
        picture.save(drawn, FORMATS[mime_type], exif=exif, xmp=xmp.encode())
    return drawn.getvalue()


def draw_plain(mime_type: str) -> bytes:
    """Return a picture without metadata."""
    drawn = io.BytesIO()
    PIL.Image.new("RGB", (16, 16), "teal").save(drawn, FORMATS[mime_type])
    return drawn.getvalue()
