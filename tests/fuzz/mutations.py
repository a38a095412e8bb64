"""Damage to files: bytes changed, cut, put in, swapped, and fields set to extremes. All of it follows from a seed."""

import functools
import struct
import zlib

import numpy as np

HEADER = 512  # bytes at a file's start that are hit more often than the rest
EXTREMES = (0, 1, -1, 2, 255, 256, 32767, 65535, 65536, 10**9, 2**31 - 1, -(2**31), 2**32 - 1, 2**63 - 1, -(2**63))
LONGEST = 4096  # bytes that are cut, put in or swapped at once


def generator(name: str, seed: int, case: int) -> np.random.Generator:
    """The random numbers of one case."""
    return np.random.default_rng((zlib.crc32(name.encode()), seed, case))


def pick(rng: np.random.Generator, values):
    """One of a sequence, as it is."""
    return values[int(rng.integers(len(values)))]


def place(rng: np.random.Generator, data: bytes) -> int:
    """An offset, in the header as often as anywhere."""
    return int(rng.integers(max(1, min(len(data), HEADER) if rng.random() < 0.5 else len(data))))


def truncated(rng, data, other):
    return data[: place(rng, data)]


def flipped(rng, data, other):
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 9))):
        if out:
            out[place(rng, data)] ^= 1 << int(rng.integers(8))
    return bytes(out)


def overwritten(rng, data, other):
    """Some bytes become random, or all the same."""
    start, length = place(rng, data), int(rng.integers(1, 65))
    new = rng.bytes(length) if rng.random() < 0.5 else bytes([pick(rng, (0, 1, 127, 128, 255))]) * length
    return data[:start] + new + data[start + length :]


def inserted(rng, data, other):
    start = place(rng, data)
    new = pick(rng, (rng.bytes(int(rng.integers(1, 65))), bytes(LONGEST), b'\xff' * 16, data[: int(rng.integers(LONGEST))]))
    return data[:start] + new + data[start:]


def cut(rng, data, other):
    start = place(rng, data)
    return data[:start] + data[start + int(rng.integers(1, LONGEST)) :]


def swapped(rng, data, other):
    """Two sections change places."""
    a, b, c = sorted(place(rng, data) for _ in range(3))
    return data[:a] + data[b:c] + data[a:b] + data[c:]


def spliced(rng, data, other):
    """The start of one file and the end of another."""
    return data[: place(rng, data)] + other[place(rng, other) :]


def extreme(rng, data, other):
    """A number of 1 to 8 bytes becomes the smallest, the largest, 0, or one that is too large for memory."""
    start, size, order = place(rng, data), pick(rng, (1, 2, 4, 8)), pick(rng, ('little', 'big'))
    number = pick(rng, EXTREMES) % 256**size
    return data[:start] + number.to_bytes(size, order) + data[start + size :]


GENERIC = (truncated, flipped, overwritten, inserted, cut, swapped, spliced, extreme)


# ---- TIFF -------------------------------------------------------------------------------------------

TIFF_TYPE_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 16: 8}


def tiff_field(rng, data, other):
    """An entry of the first directory: its tag, type, count or value, or two entries swapped (little-endian files)."""
    if len(data) < 16 or data[:4] != b'II*\0':
        return extreme(rng, data, other)
    (start,) = struct.unpack_from('<I', data, 4)
    (entries,) = struct.unpack_from('<H', data, start)
    out = bytearray(data)
    at = start + 2 + 12 * int(rng.integers(entries))
    what = rng.integers(6)
    if what == 0:
        struct.pack_into('<H', out, at, int(rng.integers(254, 345)))
    elif what == 1:
        struct.pack_into('<H', out, at + 2, int(rng.integers(0, 20)))
    elif what == 2:
        struct.pack_into('<I', out, at + 4, pick(rng, EXTREMES) % 2**32)
    elif what == 3:
        struct.pack_into('<H', out, start, pick(rng, (0, 1, entries - 1, entries + 1, 65535)))
    elif what == 4:
        second = start + 2 + 12 * int(rng.integers(entries))
        out[at : at + 12], out[second : second + 12] = out[second : second + 12], out[at : at + 12]
    else:
        struct.pack_into('<I', out, at + 8, pick(rng, (*EXTREMES, 3, 4, 5, 6, 7, 8, 32773, 34712, 50000)) % 2**32)
    return bytes(out)


RAW_TAGS = (256, 257, 258, 259, 262, 273, 277, 278, 279, 33421, 33422, 50706, 50714, 50717, 50721, 50728, 50778)
RAW_VALUES = (*EXTREMES, 3, 4, 7, 8, 10, 12, 14, 16, 32803, 34892, 52546, 65000)  # bits and compressions among them


def dng_field(rng, data, other):
    """An entry that decides how a raw file is read: size, bits, compression, pattern, levels, matrix."""
    if len(data) < 16 or data[:4] != b'II*\0':
        return extreme(rng, data, other)
    (start,) = struct.unpack_from('<I', data, 4)
    (entries,) = struct.unpack_from('<H', data, start)
    places = [start + 2 + 12 * i for i in range(entries)]
    found = [at for at in places if struct.unpack_from('<H', data, at)[0] in RAW_TAGS]
    out = bytearray(data)
    for _ in range(pick(rng, (1, 1, 2))):
        at = pick(rng, found or places)
        if rng.random() < 0.2:
            struct.pack_into('<H', out, at, pick(rng, RAW_TAGS))
        else:
            struct.pack_into('<I', out, at + pick(rng, (4, 8, 8, 8)), pick(rng, RAW_VALUES) % 2**32)
    return bytes(out)


# ---- HEIC -------------------------------------------------------------------------------------------

BOXES = (b'ftyp', b'meta', b'hdlr', b'pitm', b'iloc', b'iinf', b'infe', b'iref', b'iprp', b'ipco', b'ipma', b'ispe', b'pixi', b'hvcC', b'colr',
         b'irot', b'mdat')  # fmt: skip


def heif_box(rng, data, other):
    """The size, the kind or the content of a box; or its content again."""
    found = [(name, at) for name in BOXES for at in [data.find(name)] if at >= 4]
    if not found:
        return extreme(rng, data, other)
    out = bytearray(data)
    name, at = pick(rng, found)
    (size,) = struct.unpack_from('>I', data, at - 4)
    what = rng.integers(6)
    if what == 0:
        struct.pack_into('>I', out, at - 4, pick(rng, (*EXTREMES, size - 1, size + 1, 8, 7)) % 2**32)
    elif what == 1:
        out[at : at + 4] = pick(rng, (*BOXES, b'irot', b'clap', b'grid', b'iden', b'iovl', b'imir', b'av01'))
    elif what == 2:
        out[at - 4 : at - 4] = data[at - 4 : at - 4 + min(size, LONGEST)] * pick(rng, (1, 100))
    elif name == b'ispe':
        struct.pack_into('>I', out, at + pick(rng, (8, 12)), pick(rng, (*EXTREMES, 12_000, 32_767)) % 2**32)
    else:
        inside = at + 4 + int(rng.integers(max(1, min(size - 8, 200))))
        if inside < len(out):
            out[inside] = pick(rng, (0, 1, 2, 127, 128, 255, int(rng.integers(256))))
    return bytes(out)


# ---- PNG --------------------------------------------------------------------------------------------


def png_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    chunks, at = [], 8
    while at + 8 <= len(data):
        (length,) = struct.unpack_from('>I', data, at)
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return chunks


def png_of(chunks, start: bytes = b'\x89PNG\r\n\x1a\n') -> bytes:
    return start + b''.join(
        struct.pack('>I', len(body)) + kind + body + struct.pack('>I', zlib.crc32(kind + body)) for kind, body in chunks)


@functools.cache
def png_bomb(kind: bytes, size: int = 50_000_000) -> tuple[bytes, bytes]:
    """A text or colour profile that unpacks to 50 MB of zeros."""
    packed = zlib.compress(bytes(size), 9)
    return kind, {b'zTXt': b'a\0\0', b'iCCP': b'a\0\0', b'iTXt': b'a\0\1\0\0\0'}[kind] + packed


def png_chunk(rng, data, other):
    """A chunk is changed, doubled, moved or put in, and the checksums are right."""
    chunks = png_chunks(data)
    if len(chunks) < 3 or chunks[0][0] != b'IHDR':
        return extreme(rng, data, other)
    what = rng.integers(7)
    if what <= 1:
        header = bytearray(chunks[0][1])
        field = rng.integers(7)
        if field < 2:
            struct.pack_into('>I', header, 4 * int(field), pick(rng, EXTREMES) % 2**32)
        else:
            header[6 + int(field)] = pick(rng, (0, 1, 2, 3, 4, 6, 7, 8, 16, 32, 255))
        chunks[0] = b'IHDR', bytes(header)
    elif what == 2:
        chunks.insert(1, png_bomb(pick(rng, (b'zTXt', b'iCCP', b'iTXt'))))
    elif what == 3:
        a, b = (int(rng.integers(len(chunks))) for _ in range(2))
        chunks[a], chunks[b] = chunks[b], chunks[a]
    elif what == 4:
        chunks.insert(int(rng.integers(len(chunks))), pick(rng, chunks))
    elif what == 5:
        at = int(rng.integers(1, len(chunks)))
        chunks[at] = chunks[at][0], pick(rng, GENERIC)(rng, chunks[at][1], other)
    else:
        name = pick(rng, (b'eXIf', b'PLTE', b'tRNS', b'gAMA', b'cHRM', b'sBIT', b'acTL', b'fcTL', b'fdAT', b'pHYs'))
        chunks.insert(int(rng.integers(1, len(chunks))), (name, rng.bytes(int(rng.integers(0, 64)))))
    return png_of(chunks)


# ---- Radiance ---------------------------------------------------------------------------------------

RADIANCE_LINES = (
    b'-Y 2147483648 +X 1', b'-Y 1 +X 2147483648', b'-Y 46341 +X 46341', b'-Y 0 +X 5', b'-Y -5 +X 5', b'-Y 5 +X 0', b'+X 48 -Y 40',
    b'-Y 99999999999999999999999999 +X 3', b'-X 40 -X 40', b'-Y 40', b'', b'-Y 40 +X 48 +Z 7', b'-Y 32767 +X 32767',
    b'-Y 4' + b'0' * 5000 + b' +X 3', b'-Y \xb2 +X \xb3', b'+Y 40 +X 48', b'-Y 12000 +X 12000',
)  # fmt: skip
RADIANCE_HEADER = (
    b'EXPOSURE=1e999', b'EXPOSURE=nan', b'EXPOSURE=-1', b'FORMAT=32-bit_rle_xyze', b'FORMAT=32-bit_rle_rgbe', b'FORMAT=',
    b'GAMMA=0', b'PRIMARIES=0 0 0', b'#' * 100_000, b'=', b'COLORCORR=inf', b'#?RADIANCE', b'\0\0\0',
)  # fmt: skip


def radiance_text(rng, data, other):
    """Another size, or another line in the header."""
    head, gap, rest = data.partition(b'\n\n')
    size, _, pixels = rest.partition(b'\n')
    if rng.random() < 0.5:
        return head + gap + pick(rng, RADIANCE_LINES) + b'\n' + pixels
    lines = head.split(b'\n')
    at = int(rng.integers(len(lines) + 1))
    lines[at : at + int(rng.integers(2))] = [pick(rng, RADIANCE_HEADER)] * pick(rng, (1, 2, 100))
    return b'\n'.join(lines) + gap + rest


def radiance_runs(rng, data, other):
    """Run lengths of the pixels."""
    at = data.find(b'\n', data.find(b'\n\n') + 2) + 1
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 20))):
        if at < len(out):
            out[int(rng.integers(at, len(out)))] = pick(rng, (0, 1, 2, 127, 128, 129, 255))
    return bytes(out)


# ---- OpenEXR ----------------------------------------------------------------------------------------


def exr_attributes(data: bytes) -> list[tuple[bytes, bytes, int, int]]:
    """Name, type, start and size of the header's values."""
    found, at = [], 8
    try:
        while data[at]:
            name_end = data.index(b'\0', at)
            type_end = data.index(b'\0', name_end + 1)
            (size,) = struct.unpack_from('<I', data, type_end + 1)
            found.append((data[at:name_end], data[name_end + 1 : type_end], type_end + 5, size))
            at = type_end + 5 + size
    except (IndexError, ValueError, struct.error):
        pass
    return found


def exr_field(rng, data, other):
    """A value of the header: windows, compression, channels, tiles; or the table of offsets."""
    found = exr_attributes(data)
    if not found:
        return extreme(rng, data, other)
    out = bytearray(data)
    wanted = [entry for entry in found if entry[0] in (b'dataWindow', b'displayWindow', b'channels', b'compression', b'tiles')]
    name, kind, start, size = pick(rng, wanted if wanted and rng.random() < 0.7 else found)
    what = rng.integers(5)
    if what == 0:  # the size of the value
        struct.pack_into('<I', out, start - 4, pick(rng, EXTREMES) % 2**32)
    elif what == 1 and size:
        out[start + int(rng.integers(size))] = int(rng.integers(256))
    elif what == 2:  # the offsets
        end = found[-1][2] + found[-1][3] + 1
        if end + 8 <= len(out):
            struct.pack_into('<Q', out, end, pick(rng, EXTREMES) % 2**64)
    elif kind == b'compression':
        out[start] = int(rng.integers(0, 16))
    elif size >= 4:
        at = start + 4 * int(rng.integers(size // 4))
        struct.pack_into('<I', out, at, pick(rng, EXTREMES) % 2**32)
    return bytes(out)


# ---- JPEG -------------------------------------------------------------------------------------------


def jpeg_marker(rng, data, other):
    """The frame header, or another marker's length and content."""
    markers, at = [], 2
    while at + 4 <= len(data) and data[at] == 255 and data[at + 1] != 0xDA:
        markers.append(at)
        at += 2 + struct.unpack_from('>H', data, at + 2)[0]
    frames = [m for m in markers if data[m + 1] in (0xC0, 0xC1, 0xC2)]
    if not frames:
        return extreme(rng, data, other)
    out = bytearray(data)
    what = rng.integers(4)
    if what == 0:
        struct.pack_into('>H', out, frames[0] + pick(rng, (5, 7)), pick(rng, (0, 1, 9, 4096, 65500, 65535)))
    elif what == 1:
        struct.pack_into('>HH', out, frames[0] + 5, 65500, 65500)
    elif what == 2:
        out[frames[0] + int(rng.integers(4, 17))] = int(rng.integers(256))
    else:
        struct.pack_into('>H', out, pick(rng, markers) + 2, pick(rng, (0, 1, 2, 3, 65535)))
    return bytes(out)
