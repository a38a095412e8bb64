"""One scene: a backdrop, its moving figures, three hand-held shots, and the bracket made of them."""

import math

import cv2
import numpy as np

from afunet_jax import hdr
from afunet_jax.data.scenes import Scene
from afunet_jax.data.synthetic import nature, rooms, street
from afunet_jax.data.synthetic.actors import Actor, draw_actor
from afunet_jax.data.synthetic.backdrop import Backdrop, Role
from afunet_jax.data.synthetic.canvas import Canvas
from afunet_jax.data.synthetic.sensor import Noise, brightness, expose

KINDS = {
    'street': street.day,
    'night': street.night,
    'landscape': nature.landscape,
    'room': rooms.room,
    'shore': nature.shore,
    'archway': rooms.archway,
    'garden': nature.garden,
}
EV_CHOICES = ((0.0, 2.0, 4.0), (0.0, 3.0, 6.0))
SUPERSAMPLING = 1.5  # canvas pixels per image pixel
MARGIN = 0.05  # of the canvas beyond the picture on each side: room for the shake
STEP = (0.008, 0.045)  # how far a figure moves between exposures, in picture heights
APPROACH = (0.03, 0.08)  # the same for one that comes closer, as a share of its distance
SHAKE = 0.004  # standard deviation of the camera's shift, in picture heights
SHAKE_LIMIT = 2.0  # in standard deviations
SHAKE_TURN = 0.0025  # standard deviation of its roll, radians
SHAKE_TILT = 0.0015  # standard deviation of a corner's own shift, in picture heights


def generator(seed: int, index: int) -> np.random.Generator:
    """The generator of scene `index`: a function of the two numbers alone."""
    return np.random.default_rng(np.random.SeedSequence((seed, index)))


def _lateral(rng, canvas: Canvas, role: Role, depth: float) -> float:
    """An x in metres that is inside both the picture and the role's range."""
    half = 0.5 * canvas.shape[1] * depth / canvas.view.focal
    middle = (0.5 * canvas.shape[1] - canvas.view.x) * depth / canvas.view.focal
    low, high = max(role.lateral[0], middle - 0.85 * half), min(role.lateral[1], middle + 0.85 * half)
    return rng.uniform(low, high) if low < high else float(np.clip(middle, *role.lateral))


def _steps(rng, canvas: Canvas, role: Role, depth: float) -> np.ndarray:
    """World displacements `[2, 3]` of the short and the long exposure against the middle one."""
    if role.along:
        far = depth * rng.uniform(*APPROACH) * rng.choice((-1, 1))
        return np.array([[0, 0, -far], [0, 0, far]]) * rng.uniform(0.7, 1.3, (2, 1))
    picture = canvas.shape[0] / (1 + 2 * MARGIN)
    metres = picture * rng.uniform(*STEP) * depth / canvas.view.focal * rng.choice((-1, 1))
    rise = (
        rng.uniform(-0.5, 0.5, 2) * metres if role.height and role.height[1] > role.height[0] else np.zeros(2)
    )
    return np.array([[-metres, rise[0], 0], [metres, rise[1], 0]]) * rng.uniform(0.7, 1.3, (2, 1))


def _actor(rng, world: Backdrop, role: Role, motion: float) -> Actor:
    figure = role.figure(rng.spawn(1)[0])
    if world.night and hasattr(figure, 'night'):
        figure.night = True
    depth = rng.uniform(*role.depth)
    view, canvas = world.canvas.view, world.canvas
    x = _lateral(rng, canvas, role, depth)
    hanging = role.height is None
    y = (
        view.eye + (view.y - MARGIN * canvas.shape[0] * 0.6) * depth / view.focal
        if hanging
        else rng.uniform(*role.height)
    )
    steps = _steps(rng, canvas, role, depth) * (0.0 if hanging else motion)
    return Actor(figure, np.array([x, y, depth]), steps, world.light(x, depth))


def cast(rng, world: Backdrop, motion: float) -> list[Actor]:
    """The moving figures of a world, far to near."""
    actors = []
    for role in world.roles:
        child = rng.spawn(1)[0]
        actors += [
            _actor(child, world, role, motion)
            for _ in range(child.integers(role.count[0], role.count[1] + 1))
        ]
    return sorted(actors, key=lambda actor: -actor.place[2])


def camera(rng, height: int, width: int, motion: float) -> np.ndarray:
    """The homography `[3, 3]` of a shaken camera, in image pixels: shift, roll and tilt."""
    shift = np.clip(rng.standard_normal(2), -SHAKE_LIMIT, SHAKE_LIMIT) * SHAKE * height * motion
    turn = np.clip(rng.standard_normal(), -SHAKE_LIMIT, SHAKE_LIMIT) * SHAKE_TURN * motion
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64)
    arm = corners - corners.mean(0)
    c, s = math.cos(turn), math.sin(turn)
    moved = arm @ np.array([[c, s], [-s, c]]) + corners.mean(0) + shift
    moved += np.clip(rng.standard_normal((4, 2)), -SHAKE_LIMIT, SHAKE_LIMIT) * SHAKE_TILT * height * motion
    return cv2.getPerspectiveTransform(corners.astype(np.float32), moved.astype(np.float32))


def photograph(canvas: Canvas, height: int, width: int, shake: np.ndarray) -> np.ndarray:
    """The picture `[height, width, 3]` that a camera with homography `shake` takes of the canvas."""
    rows, cols = canvas.shape
    fit = np.array([[SUPERSAMPLING, 0, 0.0], [0, SUPERSAMPLING, 0.0], [0, 0, 1]])
    fit[0, 2] = (cols - SUPERSAMPLING * width) / 2 + (SUPERSAMPLING - 1) / 2
    fit[1, 2] = (rows - SUPERSAMPLING * height) / 2 + (SUPERSAMPLING - 1) / 2
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpPerspective(
        canvas.pixels, fit @ shake, (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT_101
    )


def render(seed: int, index: int, height: int, width: int, motion: float = 1.0) -> np.ndarray:
    """The scene's radiance at each exposure, before brightness, clipping and noise.

    Args:
        seed: of the whole set.
        index: of the scene; its kind is `KINDS[index % len(KINDS)]`.
        height, width: of the picture, pixels.
        motion: scales the figures' steps and the camera's shake; 0 stands still.

    Returns:
        float32 `[3, height, width, 3]`, linear RGB, 1 is about a white surface in full sun.
    """
    rng = generator(seed, index)
    world_rng, cast_rng, camera_rng = rng.spawn(3)
    enlarge = SUPERSAMPLING * (1 + 2 * MARGIN)
    paint = list(KINDS.values())[index % len(KINDS)]
    world = paint(world_rng, (round(height * enlarge), round(width * enlarge)))
    actors = cast(cast_rng, world, motion)
    shakes = [camera(camera_rng, height, width, motion) for _ in range(3)]
    shakes[1] = np.eye(3)
    empty, frames = world.canvas.pixels, []
    for exposure in range(3):
        world.canvas.pixels = empty.copy() if exposure < 2 else empty
        for actor in actors:
            draw_actor(world.canvas, actor, exposure, motion > 0)
        frames.append(photograph(world.canvas, height, width, shakes[exposure]))
    return np.maximum(np.stack(frames), np.float32(0))


def make_scene(
    seed: int,
    index: int,
    height: int,
    width: int,
    evs=(0.0, 2.0, 4.0),
    motion: float = 1.0,
    noise: Noise = Noise(),
) -> Scene:
    """One synthetic scene, the same for the same arguments whatever else is made.

    Args:
        seed: of the whole set.
        index: of the scene, from 0.
        height, width: pixels.
        evs: exposures in stops, short to long, the short one 0; None draws one of `EV_CHOICES`.
        motion: scales all movement; 1 is 8 to 45 pixels for figures at 1000 rows, 0 none.
        noise: of the sensor; `NOISELESS` for none.

    Returns:
        A scene whose label is the radiance of the middle exposure's moment, clipped to at most 1:
        what the short exposure (time 1) would hold. 10 to 30 % of the middle exposure is saturated.
    """
    exposure_rng, noise_rng = generator(seed, index).spawn(5)[3:]
    choice = EV_CHOICES[exposure_rng.integers(len(EV_CHOICES))]
    evs = np.array(choice if evs is None else evs, np.float32)
    times = hdr.exposure_time(evs)
    frames = render(seed, index, height, width, motion)
    frames *= np.float32(brightness(exposure_rng, frames[1], float(times[1])))
    ldrs = np.stack([expose(noise_rng, frame, float(time), noise) for frame, time in zip(frames, times)])
    kind = list(KINDS)[index % len(KINDS)]
    return Scene(f'{kind}-{seed}-{index:04d}', ldrs, evs, np.minimum(frames[1], np.float32(1)))
