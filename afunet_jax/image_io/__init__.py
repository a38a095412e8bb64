"""Images on disk: 16-bit TIFF, PNG, JPEG and Radiance .hdr, read and written through OpenCV; OpenEXR read.

In memory an image is `[H, W, 3]`, colours in the order R, G, B. LDR images are uint16 (8 bits are
spread over 0..65535), HDR images are float32 and linear. A file is read whole or refused: before
OpenCV decodes it, its own index (TIFF), header (Radiance) or end marker (PNG, JPEG) is held against
its length, because some decoders fill what is missing and say so only in a log. Its size is taken from there too:
more than `max_pixels`, or more than so short a file can hold, is refused before memory is asked for. Every error is a
`DataError` that names the file and the cure. Files are written under a temporary name, then moved.

    ldr, hdr               images of 8 and 16 bits, and of floats, whatever their format
    tiff, png, jpeg        what a file says of itself against its length
    radiance, rgbe, exr    formats of linear light
    opencv, orientation    the decoder and encoder, and what is upright
    content                bytes, limits, writing
"""

from afunet_jax.image_io.content import (
    MAX_FILE_BYTES,
    MAX_PIXELS,
    PathLike,
    check_size,
    read_bytes,
    read_start,
    write_atomically,
)
from afunet_jax.image_io.exr import EXR_MAGIC, ExrWarning, exr_size, read_exr
from afunet_jax.image_io.hdr import read_hdr, write_hdr
from afunet_jax.image_io.jpeg import JPEG_MAGIC
from afunet_jax.image_io.ldr import EIGHT_TO_SIXTEEN_BITS, EightBitWarning, check_ldr_file, read_ldr, write_ldr
from afunet_jax.image_io.opencv import decode
from afunet_jax.image_io.orientation import upright
from afunet_jax.image_io.png import PNG_MAGIC
from afunet_jax.image_io.radiance import RADIANCE_PREAMBLE, radiance_size, radiance_start
from afunet_jax.image_io.rgbe import RGBE_LARGEST, from_rgbe, to_rgbe
from afunet_jax.image_io.tiff import TIFF_MAGIC, tiff_tags

__all__ = [
    'EIGHT_TO_SIXTEEN_BITS', 'EXR_MAGIC', 'JPEG_MAGIC', 'MAX_FILE_BYTES', 'MAX_PIXELS', 'PNG_MAGIC',
    'RADIANCE_PREAMBLE', 'RGBE_LARGEST', 'TIFF_MAGIC', 'EightBitWarning', 'ExrWarning', 'PathLike', 'check_ldr_file',
    'check_size', 'decode', 'exr_size', 'from_rgbe', 'radiance_size', 'radiance_start', 'read_bytes', 'read_exr',
    'read_hdr', 'read_ldr', 'read_start', 'tiff_tags', 'to_rgbe', 'upright', 'write_atomically', 'write_hdr',
    'write_ldr',
]  # fmt: skip
