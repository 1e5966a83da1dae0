"""Marks image files as made by a generative model: IPTC's digital source type in XMP.

IPTC Photo Metadata Standard, "Digital Source Type", and XMP Specification Part 3 (where each file format has XMP).
"""

from __future__ import annotations

import struct

from common.image_chunks import WEBP_XMP_FLAG, add_jpeg_segment, add_png_chunk, add_webp_chunk
from common.image_formats import JPEG, PNG
from common.image_header import inspect

SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
"""The term of IPTC's vocabulary for media made by a model that was trained on content."""
XMP = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/">'
    f"<Iptc4xmpExt:DigitalSourceType>{SOURCE_TYPE}</Iptc4xmpExt:DigitalSourceType>"
    '</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
).encode()
"""The packet, the same for every image."""
_PNG_KEY = b"XML:com.adobe.xmp\0\0\0\0\0"  # keyword, uncompressed, no language, no translation
_JPEG_KEY = b"http://ns.adobe.com/xap/1.0/\0"


def mark(data: bytes) -> bytes:
    """The image file with the mark. Raises ValueError where it is no PNG, JPEG or WEBP."""
    header = inspect(data)
    try:
        if header.format is PNG:
            return add_png_chunk(data, b"iTXt", _PNG_KEY + XMP)
        if header.format is JPEG:
            return add_jpeg_segment(data, _JPEG_KEY + XMP)
        return add_webp_chunk(data, b"XMP ", XMP, WEBP_XMP_FLAG, header)
    except (struct.error, IndexError, OverflowError) as error:
        raise ValueError(f"{len(data)} bytes cannot be marked: {error}") from None


def is_marked(data: bytes) -> bool:
    """Whether the file has this mark."""
    return XMP in data
