"""The pictures of one scene, checked, encoded and written beside the page."""

import base64
import dataclasses
import hashlib
import math
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from afunet_jax import files, hdr
from afunet_jax.errors import DataError
from afunet_jax.html_report import encoding, markup

FOLDER = 'report_files'  # beside the page
CALL = 'afunetScene'  # the page's function that a scene's file calls
REFERENCE, GROUND_TRUTH = 'reference exposure', 'ground truth'
QUALITIES = (97, 95, 92, 88, 82, 75, 65, 50, 35)  # of the JPEGs: the first that fits, else the last
BYTES_PER_PIXEL = 2.6  # of a scene's file: 15 scenes of 1000 x 1500 pixels stay below 60 MB
SMALL_FILE = 100_000  # bytes of a scene's file that are always allowed: those of small images are mostly headers
SHOWN_MIDDLE = 0.2  # linear value at which the median of the first picture is shown at first
MOST_STOPS = 6  # of the exposure slider, either way
NAME_CHARACTERS = 40  # of a scene's name that its file's name keeps


@dataclasses.dataclass(frozen=True)
class ScenePictures:
    """What the page shows of a scene. All images have the same height and width.

    Attributes:
        scene: the name, as in the rows.
        predictions: method to linear image, float `[H, W, 3]`; negative values are shown as 0. The first
            method stands on the left at first.
        ground_truth: linear, float `[H, W, 3]`; None without one, then there are no error maps.
        reference: the reference exposure, gamma-encoded, uint16 or uint8 `[H, W, 3]`, or None.
        probability_maps: title of HDR-VDP-2 with its preset, to method, to the probability of detection,
            float `[H, W]` in [0, 1].
    """

    scene: str
    predictions: Mapping[str, np.ndarray]
    ground_truth: np.ndarray | None = None
    reference: np.ndarray | None = None
    probability_maps: Mapping[str, Mapping[str, np.ndarray]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class WrittenScene:
    """A scene whose pictures are on disk: its name, the key that the page knows it by, and the file."""

    scene: str
    key: str
    path: pathlib.Path


def write_scene(folder: str | pathlib.Path, pictures: ScenePictures) -> WrittenScene:
    """Encodes a scene's pictures into one file in `folder/report_files`, for `write_report`.

    Call it as scenes are done, so that only one scene's images are in memory. The JPEGs' quality is the best
    of `QUALITIES` with which the file has at most `BYTES_PER_PIXEL` times the pixels, or `SMALL_FILE`.

    Raises:
        DataError: images of different shapes, not finite, or out of range; no predictions.
    """
    check(pictures)
    key = scene_key(pictures.scene)
    height, width = next(iter(pictures.predictions.values())).shape[:2]
    layers = _layers(pictures)
    for quality in QUALITIES:
        encoded = [{**layer.entry, 'data': _text(encoding.jpeg(layer.image, quality))} for layer in layers]
        size = sum(len(entry['data']) + len(entry.get('gains', '')) for entry in encoded)
        if size <= max(BYTES_PER_PIXEL * height * width, SMALL_FILE):
            break
    text = markup.script_json({**_start(pictures), 'height': height, 'width': width, 'layers': encoded})
    path = pathlib.Path(folder) / FOLDER / f'{key}.js'
    files.write_text(path, f'{CALL}("{key}",{text});\n')
    return WrittenScene(pictures.scene, key, path)


def read_scene_json(written: WrittenScene) -> markup.Markup:
    """The JSON in a scene's file, safe inside a script element."""
    text = written.path.read_text(encoding='ascii')
    return markup.Markup(text.removeprefix(f'{CALL}("{written.key}",').removesuffix(');\n'))


def scene_key(scene: str) -> str:
    """A file name and HTML id for any name: its letters and digits, and a hash that tells it from others."""
    raw = scene.encode('utf-8', 'backslashreplace')
    readable = re.sub(r'[^a-z0-9]+', '-', scene.lower())[:NAME_CHARACTERS].strip('-')
    return f'{readable or "scene"}-{hashlib.sha256(raw).hexdigest()[:8]}'


def check(pictures: ScenePictures) -> None:
    """Raises a DataError where the pictures break a rule of `ScenePictures`."""
    if not pictures.predictions:
        raise DataError(
            f'scene {pictures.scene}: a report shows at least one prediction, and there is none. '
            'Give the merged images of one method or more.'
        )
    size = next(iter(pictures.predictions.values())).shape[:2]
    images = dict(pictures.predictions)
    if pictures.ground_truth is not None:
        images[GROUND_TRUTH] = pictures.ground_truth
    for title, image in images.items():
        _check_image(pictures.scene, title, image, (*size, 3))
    for title, values in _maps(pictures):
        _check_image(pictures.scene, title, values, size)
        if values.min() < 0 or values.max() > 1:
            raise DataError(
                f'scene {pictures.scene}, {title}: probabilities are 0 to 1, these '
                f'{values.min():.4g} to {values.max():.4g}. Give the map as the metric returns it.'
            )
    _check_reference(pictures, size)


def _check_image(scene: str, title: str, image: np.ndarray, shape: tuple[int, ...]) -> None:
    if image.shape != shape:
        raise DataError(
            f'scene {scene}, {title}: the shape must be {list(shape)}, as that of the first prediction, '
            f'not {list(image.shape)}. Crop or resize it before.'
        )
    if not np.isfinite(image).all():
        raise DataError(
            f'scene {scene}, {title}: {np.count_nonzero(~np.isfinite(image))} values are not finite. '
            'Mend the method that made it; NaN cannot be shown.'
        )


def _check_reference(pictures: ScenePictures, size: tuple[int, int]) -> None:
    image = pictures.reference
    if image is not None and (image.shape != (*size, 3) or image.dtype not in (np.uint8, np.uint16)):
        raise DataError(
            f'scene {pictures.scene}, {REFERENCE}: uint16 or uint8 {[*size, 3]} is shown, not '
            f'{image.dtype} {list(image.shape)}. Give the exposure as it is stored.'
        )


class Layer(NamedTuple):
    """Something to look at: what the page is told of it, and its image, which is stored as a JPEG."""

    entry: dict[str, Any]
    image: np.ndarray


def _layers(pictures: ScenePictures) -> list[Layer]:
    """What the viewer offers, in this order: pictures, then maps."""
    label = pictures.ground_truth
    layers = [_hdr_layer(method, image) for method, image in pictures.predictions.items()]
    if label is not None:
        layers.append(_hdr_layer(GROUND_TRUTH, label))
    if pictures.reference is not None:
        image = pictures.reference
        stored = image if image.dtype == np.uint8 else (image >> 8).astype(np.uint8)
        layers.append(Layer({'kind': 'ldr', 'title': REFERENCE}, stored))
    if label is not None:
        seen = hdr.mu_law(np.maximum(label, 0))
        for method, image in pictures.predictions.items():
            error = encoding.encode_error(hdr.mu_law(np.maximum(image, 0)), seen)
            layers.append(Layer({'kind': 'map', 'scale': 'error', 'title': f'error, {method}'}, error))
    for title, values in _maps(pictures):
        entry = {'kind': 'map', 'scale': 'probability', 'title': title}
        layers.append(Layer(entry, encoding.encode_map(values)))
    return layers


def _maps(pictures: ScenePictures) -> Iterator[tuple[str, np.ndarray]]:
    for metric, maps in pictures.probability_maps.items():
        for method, values in maps.items():
            yield f'{metric}, {method}', values


def _hdr_layer(title: str, image: np.ndarray) -> Layer:
    encoded = encoding.encode_hdr(image)
    entry = {
        'kind': 'hdr',
        'title': title,
        'gains': _text(encoded.gains.tobytes()),
        'low': encoded.low,
        'high': encoded.high,
    }
    return Layer(entry, encoded.base)


def _start(pictures: ScenePictures) -> dict[str, Any]:
    """What is shown first: the first method and the ground truth, or another method; a fitting exposure."""
    methods, label = len(pictures.predictions), pictures.ground_truth
    right = methods if label is not None else min(1, methods - 1)
    shown = next(iter(pictures.predictions.values())) if label is None else label
    middle = float(np.median(np.maximum(shown, 0).max(-1)))
    stops = round(math.log2(SHOWN_MIDDLE / max(middle, 2.0**encoding.DARKEST_LOG2)))
    return {'left': 0, 'right': right, 'exposure': max(-MOST_STOPS, min(stops, MOST_STOPS))}


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
