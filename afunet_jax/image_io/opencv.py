"""OpenCV's decoder and encoder, on bytes: any path will do, and what fails is an error that names the file."""

from collections.abc import Sequence

import cv2
import numpy as np

from afunet_jax.errors import DataError
from afunet_jax.image_io.content import FETCH_AGAIN, PathLike
from afunet_jax.image_io.orientation import upright
from afunet_jax.image_io.tiff import TIFF_MAGIC, as_stored

THROUGH_TMP = ' (Or is /tmp full, or not to be written? OpenCV passes .hdr through a file there.)'


def _silence_opencv() -> None:
    # What OpenCV logs, the errors here say with the file's name. The function moved in OpenCV 5.
    if hasattr(cv2, 'setLogLevel'):
        cv2.setLogLevel(0)
    else:
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


_silence_opencv()


def decode(path: PathLike, data: bytes, hint: str = '') -> np.ndarray:
    """OpenCV's decoder on a file's bytes, so that any path will do.

    The orientation of a TIFF is applied, the EXIF orientation of other formats is not. `hint` ends the message.

    Returns:
        `[H, W]`, or `[H, W, C]` in the order B, G, R, A, in the file's own type.

    Raises:
        DataError: the pixels cannot be decoded.
    """
    orientation = 1
    if data.startswith(TIFF_MAGIC):
        data, orientation = as_stored(data)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise DataError(f'{path}: damaged, its pixels cannot be decoded ({error.err}). '
                        f'{FETCH_AGAIN}{hint}') from error
    if image is None:
        raise DataError(f'{path}: the pixels cannot be decoded: damaged, truncated, or of a kind '
                        f'that OpenCV does not read. {FETCH_AGAIN} If that does not help, export it anew.{hint}')
    return upright(image, orientation)


def encode(path: PathLike, ending: str, image: np.ndarray, options: Sequence[int] = ()) -> bytes:
    """OpenCV's encoder.

    Args:
        path: for the message.
        ending: of the format, as '.png'.
        image: `[H, W, 3]`, RGB.
        options: pairs of `cv2.IMWRITE_*` and their values.

    Raises:
        DataError: it cannot be encoded.
    """
    done, encoded = cv2.imencode(ending, np.ascontiguousarray(image[..., ::-1]), options)
    if not done:
        raise DataError(f'{path}: OpenCV cannot encode an image of shape {list(image.shape)} as {ending}.'
                        + (THROUGH_TMP if ending == '.hdr' else ''))
    return encoded.tobytes()
