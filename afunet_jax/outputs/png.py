"""Chunks of PNG files: what an encoder does not write, put in behind its header.

The chunks are of PNG (Third Edition), W3C 2025. `sRGB` and `cICP` must come before the pixels.
"""

import struct
import zlib
from collections.abc import Iterator

from afunet_jax.image_io import PNG_MAGIC

HEADER_END = len(PNG_MAGIC) + 25  # the header chunk: length, name, 13 bytes, checksum
PERCEPTUAL = 0  # sRGB's rendering intent
LIGHT_STEPS = 10000  # a cd/m2, of the chunk cLLI


def insert(data: bytes, chunks: dict[bytes, bytes]) -> bytes:
    """A PNG with more chunks, right behind its header. `chunks`: name (four letters) to content."""
    more = b''.join(_chunk(name, content) for name, content in chunks.items())
    return data[:HEADER_END] + more + data[HEADER_END:]


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack('>I', len(content)) + name + content + struct.pack('>I', zlib.crc32(name + content))


def chunks_of(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name and content of every chunk, in order."""
    start = len(PNG_MAGIC)
    while start < len(data):
        length, name = struct.unpack('>I4s', data[start : start + 8])
        yield name, data[start + 8 : start + 8 + length]
        start += 12 + length


def srgb() -> dict[bytes, bytes]:
    """The chunk that says: the pixels are sRGB."""
    return {b'sRGB': bytes([PERCEPTUAL])}


def coding(primaries: int, transfer: int) -> dict[bytes, bytes]:
    """cICP: full-range RGB by code points of ITU-T H.273."""
    return {b'cICP': bytes([primaries, transfer, 0, 1])}


def light_level(brightest: float, mean: float) -> dict[bytes, bytes]:
    """cLLI: the brightest pixel's and the image's mean light, cd/m2 (CTA-861.3)."""
    return {b'cLLI': struct.pack('>II', round(brightest * LIGHT_STEPS), round(mean * LIGHT_STEPS))}
