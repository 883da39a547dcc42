"""Makes a thumbnail: a picture's bytes in, a PNG's bytes out. Needs Pillow (python3-pil)."""

import io
import os

from PIL import Image, ImageOps

SIDE = int(os.environ.get("SIDE", "160"))
Image.MAX_IMAGE_PIXELS = 40_000_000  # a small file can claim to be a huge picture


def resize(payload: bytes) -> bytes:
    with Image.open(io.BytesIO(payload)) as picture:
        small = ImageOps.exif_transpose(picture).convert("RGB")
    small.thumbnail((SIDE, SIDE))
    out = io.BytesIO()
    small.save(out, "PNG")
    print(f"{len(payload)} bytes in, {small.width}x{small.height}, {out.tell()} bytes out")
    return out.getvalue()
