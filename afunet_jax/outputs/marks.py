"""What our files say of themselves, so that results that lie among photos are not merged as photos."""

import pathlib

SOFTWARE = 'AFUNet JAX'
START = 4096  # bytes of a file, among which the mark is
JPEG_COMMENT = b'\xff\xfe'
JPEG_START = 2  # bytes before the first segment
# Of the index of a JPEG of several images, CIPA DC-007: its name, and tag and type of the list of images.
MP_NAME, MP_ENTRIES = b'MPF\0', b'\xb0\x02\x00\x07'


def is_ours(path: pathlib.Path) -> bool:
    """Whether a file says that we wrote it; one that cannot be read does not."""
    try:
        with open(path, 'rb') as file:
            return SOFTWARE.encode() in file.read(START)
    except OSError:
        return False


def png_text() -> dict[bytes, bytes]:
    """The chunk that names the program, see `png.insert`."""
    return {b'tEXt': b'Software\0' + SOFTWARE.encode()}


def mark_gain_map(data: bytes) -> bytes:
    """Puts a comment into a JPEG with a gain map, whose index says how long its first image is."""
    comment = JPEG_COMMENT + (2 + len(SOFTWARE)).to_bytes(2, 'big') + SOFTWARE.encode()
    base = data.index(MP_NAME) + len(MP_NAME)
    entries = data.index(MP_ENTRIES, base) + 8
    size = base + int.from_bytes(data[entries : entries + 4], 'big') + 4
    longer = int.from_bytes(data[size : size + 4], 'big') + len(comment)
    return data[:JPEG_START] + comment + data[JPEG_START:size] + longer.to_bytes(4, 'big') + data[size + 4 :]
