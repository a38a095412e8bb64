"""One scene: a backdrop, what moves before it, three shaken and blurred shots, and the bracket made of them."""

import dataclasses
import functools
import math

import cv2
import numpy as np

from afunet_jax import hdr
from afunet_jax.data.brackets.layers import Layer, along, cutout, draw_layer, figure
from afunet_jax.data.brackets.sources import SPLITS, Source
from afunet_jax.data.brackets.views import SUPERSAMPLING, Camera, View, random_view
from afunet_jax.data.scenes import Scene
from afunet_jax.data.synthetic import compose as painted
from afunet_jax.data.synthetic.sensor import Noise, brightness, expose
from afunet_jax.data.synthetic.textures import GREY_WEIGHTS
from afunet_jax.photos import align

EV_STEPS = {1: 0.25, 2: 0.45, 3: 0.3}  # stops between exposures, and their shares: most brackets have 2
EQUAL_STEPS = 0.6  # share of brackets of drawn steps whose two are the same: as a camera takes them
EV_DIGITS = 2  # decimals of drawn exposures: what their file shows is what they are
# Electrons at saturation halve with each doubling of ISO; read noise in electrons falls a little (amplified
# before it is read). 30000 and 4 are data.synthetic's sensor, a small one; ISO 3200 is a poor evening.
SENSORS = {100: Noise(30000, 4.0), 400: Noise(7500, 3.2), 800: Noise(3750, 2.8), 1600: Noise(1875, 2.5),
           3200: Noise(940, 2.2)}
ISO_SHARES = {100: 0.35, 400: 0.25, 800: 0.2, 1600: 0.15, 3200: 0.05}
LAYERS = (1, 5)  # cut-outs and figures of a scene, fewest and most
SHAKE = (0.001, 0.015)  # standard deviation of a hand's shift between exposures, in picture heights
SHAKE_TURN = 0.4  # radians of roll per picture height of shift
SHAKE_LIMIT = 2.0  # in standard deviations
SHUTTER = (0.02, 0.35)  # duration of the long exposure, as a share of the time between exposures
BLUR_STEP = 1.25  # pixels between the sub-positions of a blur
BLUR_MOST = 10  # sub-positions: then a blur of 12 pixels is still smooth
SATURATION = (0.6, 2.0)  # of graded scenes, least and most: times the distance from grey
WHITE_BALANCE = 0.25  # standard deviation of the logarithm of a graded colour's gain
CONTRAST = (0.85, 1.2)  # exponents of graded luminance: less and more dynamic range
DARKEST = 1e-6  # of a graded scene's median luminance: contrast leaves what is darker as it is
JPEG_QUALITY = (80, 98)  # least and most
JPEG_FULL_COLOUR = 0.5  # share of compressed scenes whose colours are not stored at half the size
# Multiples of an irrational number, modulo 1, fill 0 to 1 evenly (Weyl; the golden ratio's most evenly): the
# shares of still and of painted scenes hold in short sets too, and independently of each other.
EVEN_STATIC, EVEN_PROCEDURAL = 0.6180339887498949, 0.5698402909980532
SPLIT_OFFSETS = {'train': 0, 'test': 1_000_000, 'validation': 2_000_000}  # painted scenes: splits never meet
DOMAIN = 0x42524B  # keeps these generators apart from those of data.synthetic


@dataclasses.dataclass(frozen=True)
class Shares:
    """Shares of scenes, 0 to 1.

    Attributes:
        procedural: scenes of `data.synthetic`.
        static: nothing moves, neither does the camera: a network must not make these worse than a merge.
        srgb: stored with sRGB's tone curve in place of gamma 2.2, which the readers assume: cameras differ.
        eight_bit: stored with 8 bits: what a JPEG holds.
        figure: layers that are painted figures, not cut-outs.
        graded: whose colours, white balance and contrast are changed: few images have saturated colours.
        jpeg: compressed as JPEG, and so of 8 bits: what most photos are.
        aligned: whose frames are aligned as photos are before they are merged (`photos.align`).
    """

    procedural: float = 0.4
    static: float = 0.15
    srgb: float = 0.2
    eight_bit: float = 0.3
    figure: float = 0.25
    graded: float = 0.0
    jpeg: float = 0.0
    aligned: float = 0.0


@dataclasses.dataclass
class World:
    """A real backdrop and what moves: everything that the three shots see.

    Attributes:
        view: the backdrop.
        layers: far to near.
        shifts: camera in the short, middle and long exposure: x and y in pixels, roll in radians, `[3, 3]`.
        shutter: duration of the long exposure in units of the time between exposures.
    """

    view: View
    layers: list[Layer]
    shifts: np.ndarray
    shutter: float


def is_static(index: int, shares: Shares) -> bool:
    """Whether scene `index` of a split stands still."""
    return (0.5 + index * EVEN_STATIC) % 1 < shares.static


def is_procedural(index: int, shares: Shares) -> bool:
    """Whether scene `index` of a split is one of `data.synthetic`."""
    return (0.5 + index * EVEN_PROCEDURAL) % 1 < shares.procedural


def _generator(seed: int, split: str, index: int, use: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence((DOMAIN, seed, SPLITS.index(split), index, use)))


def _source(seed: int, split: str, index: int, sources: tuple[Source, ...]) -> Source:
    """Each source once in every round, in an order of the round's own."""
    turn, place = divmod(index, len(sources))
    return sources[_generator(seed, split, turn, 0).permutation(len(sources))[place]]


def _shake(rng, height: int) -> np.ndarray:
    """Camera knots `[3, 3]`; the middle exposure is the reference."""
    strength = math.exp(rng.uniform(*np.log(SHAKE)))
    normal = np.clip(rng.standard_normal((3, 3)), -SHAKE_LIMIT, SHAKE_LIMIT)
    normal[1] = 0
    return normal * strength * np.array([height, height, SHAKE_TURN])


def make_world(
    rng: np.random.Generator, source: Source, sources: tuple[Source, ...], height: int, width: int,
    motion: float = 1.0, shares: Shares = Shares(),
) -> World:
    """A random scene before `source`.

    Args:
        rng: draws everything.
        source: of the backdrop.
        sources: of the cut-outs: all of the split.
        height, width: of the picture, pixels.
        motion: 0 stands still: nothing moves during or between the exposures.
        shares: of painted figures.
    """
    view_rng, layer_rng, shake_rng = rng.spawn(3)
    view = random_view(view_rng, source, height, width)
    luminance = view.frame()[::SUPERSAMPLING, ::SUPERSAMPLING] @ GREY_WEIGHTS
    layers = []
    for child in layer_rng.spawn(int(layer_rng.integers(LAYERS[0], LAYERS[1] + 1))):
        if child.random() < shares.figure:
            layers.append(figure(child, luminance, height, width))
        else:
            layers.append(cutout(child, sources[child.integers(len(sources))], luminance, height, width))
        if motion == 0:
            _stop(layers[-1])
    shifts, shutter = _shake(shake_rng, height) * motion, shake_rng.uniform(*SHUTTER) * motion
    return World(view, sorted(layers, key=lambda layer: layer.nearness), shifts, shutter)


def _stop(layer: Layer) -> None:
    """Holds a layer in its middle pose and place."""
    layer.textures = (layer.textures[len(layer.textures) // 2],)
    layer.place, layer.turn, layer.zoom = (k[[1, 1, 1]] for k in (layer.place, layer.turn, layer.zoom))


def photograph(world: World, exposure: int, duration: float) -> np.ndarray:
    """The mean of what exposure 0, 1 or 2 sees while it lasts, float32 `[H, W, 3]`.

    Args:
        world: the scene.
        exposure: 0 short, 1 middle, 2 long; its middle is the time -1, 0 or 1.
        duration: of this exposure, in units of the time between exposures.
    """
    height, width = world.view.size
    shake = np.abs(np.diff(world.shifts, axis=0)).max(0) @ np.array([1, 1, 0.5 * math.hypot(height, width)])
    reach = duration * (shake + max((layer.reach for layer in world.layers), default=0.0))
    count = int(np.clip(math.ceil(reach / BLUR_STEP), 1, BLUR_MOST))
    total = None
    for k in range(count):
        time = exposure - 1 + duration * ((k + 0.5) / count - 0.5)
        camera = Camera(*along(world.shifts, time))
        canvas = world.view.frame(camera)
        for layer in world.layers:
            draw_layer(canvas, layer, exposure, time, camera)
        total = canvas if total is None else cv2.add(total, canvas, dst=total)
    small = cv2.resize(total, (width, height), interpolation=cv2.INTER_AREA)
    return np.maximum(small / np.float32(count), np.float32(0))


def _real(rng, source: Source, sources, height: int, width: int, times, motion: float, shares: Shares):
    """Radiance `[3, H, W, 3]` of a scene before a real backdrop, and its part of the record."""
    world = make_world(rng, source, sources, height, width, motion, shares)
    frames = np.stack([photograph(world, k, world.shutter * float(times[k] / times[2])) for k in range(3)])
    step = max(float(np.hypot(*np.diff(layer.place, axis=0).T).max()) for layer in world.layers)
    return frames, {
        'source': source.file, 'layers': [layer.source for layer in world.layers],
        'largest_step': round(step, 2), 'shake': round(float(np.hypot(*world.shifts[:, :2].T).max()), 2),
        'shutter': round(world.shutter, 4),
    }


def _procedural(seed: int, index: int, height: int, width: int, motion: float):
    """The same of a scene of `data.synthetic`."""
    frames = painted.render(seed, index, height, width, motion)
    return frames, {'source': f'synthetic {list(painted.KINDS)[index % len(painted.KINDS)]}', 'layers': []}


def grade(rng: np.random.Generator, frames: np.ndarray) -> np.ndarray:
    """Other colours and contrast, the same in all frames: as if the scene were painted and lit otherwise.

    Args:
        rng: draws saturation, white balance and contrast.
        frames: radiance `[3, H, W, 3]`, linear RGB, 0 or more.

    Returns:
        The same, float32; what would become negative is 0, as in what a camera's colours do not reach.
    """
    saturation = math.exp(rng.uniform(*np.log(SATURATION)))
    gains = np.exp(rng.normal(0, WHITE_BALANCE, 3)).astype(np.float32)
    contrast = rng.uniform(*CONTRAST)
    grey = (frames @ GREY_WEIGHTS)[..., None]
    relative = np.maximum(grey / max(float(np.median(grey)), np.finfo(np.float32).tiny), np.float32(DARKEST))
    coloured = np.maximum(grey + np.float32(saturation) * (frames - grey), np.float32(0))
    return coloured * gains * relative ** np.float32(contrast - 1)


def compress(rng: np.random.Generator, ldrs: np.ndarray) -> np.ndarray:
    """The same images, `[3, H, W, 3]` uint16 of 8 bits, out of JPEGs of one quality."""
    quality = int(rng.integers(*JPEG_QUALITY, endpoint=True))
    full = rng.random() < JPEG_FULL_COLOUR
    colour = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444 if full else cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, colour]
    out = []
    for ldr in ldrs:
        stored = cv2.cvtColor((ldr // 257).astype(np.uint8), cv2.COLOR_RGB2BGR)
        read = cv2.imdecode(cv2.imencode('.jpg', stored, options)[1], cv2.IMREAD_COLOR)
        out.append(cv2.cvtColor(read, cv2.COLOR_BGR2RGB).astype(np.uint16) * np.uint16(257))
    return np.stack(out)


def _draw(rng, table: dict):
    return list(table)[rng.choice(len(table), p=list(table.values()))]


def draw_evs(rng: np.random.Generator, steps: tuple[float, float]) -> tuple[float, float, float]:
    """Exposures from 0 whose two steps lie between `steps`, in stops, equal in a share `EQUAL_STEPS` of draws."""
    first, second = rng.uniform(*steps, 2).round(EV_DIGITS)
    return 0.0, first, round(first + (first if rng.random() < EQUAL_STEPS else second), EV_DIGITS)


def make_bracket(
    seed: int, split: str, index: int, height: int, width: int, sources: tuple[Source, ...],
    shares: Shares = Shares(), noise: Noise | None = None, evs: tuple[float, float, float] | None = None,
    steps: tuple[float, float] | None = None,
) -> tuple[Scene, dict]:
    """One scene, the same for the same arguments whatever else is made.

    Args:
        seed: of the whole set, 0 or more.
        split: 'train', 'validation' or 'test'.
        index: of the scene in its split, from 0.
        height, width: pixels.
        sources: of this split, for backdrop and cut-outs; may be empty if all scenes are procedural.
        shares: how many scenes are what.
        noise: of the sensor; None draws one of `SENSORS`.
        evs: exposures in stops, from 0, rising; None draws them.
        steps: least and most stops between two exposures, to be drawn from, also unequal ones; None: those of
            `EV_STEPS`, equal in a scene. Of no effect beside `evs`.

    Returns:
        The scene, and the record of what it is. Its label is the radiance that the middle exposure saw, clipped to
        at most 1: what the short exposure would hold.
    """
    rng = functools.partial(_generator, seed, split, index)
    choices = rng(1)
    step, iso = _draw(choices, EV_STEPS), _draw(choices, ISO_SHARES)
    compressing = rng(7)
    compressed = bool(compressing.random() < shares.jpeg)
    bits = 8 if choices.random() < shares.eight_bit or compressed else 16
    curve = 'srgb' if choices.random() < shares.srgb else 'gamma'
    if evs is None:
        evs = (0, step, 2 * step) if steps is None else draw_evs(rng(6), steps)
    evs = np.array(evs, np.float32)
    times, static = hdr.exposure_time(evs), is_static(index, shares)
    motion, procedural = float(not static), is_procedural(index, shares)
    if procedural:
        frames, told = _procedural(seed, SPLIT_OFFSETS[split] + index, height, width, motion)
    else:
        source = _source(seed, split, index, sources)
        frames, told = _real(rng(2), source, sources, height, width, times, motion, shares)
    grading = rng(5)
    graded = bool(grading.random() < shares.graded)
    if graded:
        frames = grade(grading, frames)
    frames *= np.float32(brightness(rng(3), frames[1], float(times[1])))
    sensor, grain = SENSORS[iso] if noise is None else noise, rng(4)
    ldrs = np.stack([expose(grain, f, float(t), sensor, bits, curve) for f, t in zip(frames, times)])
    if compressed:
        ldrs = compress(compressing, ldrs)
    record = {'split': split, 'index': index, 'kind': 'procedural' if procedural else 'real', 'static': static,
              **told, 'evs': evs.tolist(), 'iso': iso if noise is None else None, 'bits': bits, 'curve': curve,
              'graded': graded, 'jpeg': compressed}
    scene = Scene(f'{split}-{seed}-{index:04d}', ldrs, evs, np.minimum(frames[1], np.float32(1)))
    if rng(8).random() < shares.aligned:
        scene, record['aligned'] = align.align_scene(scene)
    else:
        record['aligned'] = False
    return scene, record
