"""The steerable pyramid "sp3" with four orientations and reflected borders, by FFT.

Bands are listed as b = 1 (high-pass residual, full size), b = 2..B-1 (oriented, halving), b = B (base);
here `bands[b - 1]`. Borders are reflected without repeating the edge pixel.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from afunet_jax.metrics.hdrvdp2.stored import load_table

ORIENTATIONS = 4
SMALLEST_SIDE = 17  # pixels a level needs: the width of the low-pass filter
FFT_FACTORS = (2, 3, 5)  # lengths made of these are fast


class Filters(NamedTuple):
    """`level`: `[5, 17, 17]`, the low-pass filter and the four oriented ones; `first`: `[2, 15, 15]`, the
    low-pass filter before the first level and the high-pass residual's. All centred; rows are y."""

    level: np.ndarray
    first: np.ndarray


@functools.cache
def pyramid_filters() -> Filters:
    """The filters of the pyramid, float64."""
    oriented = [load_table(f'sp3_bfilt{o + 1}_9x9.csv') for o in range(ORIENTATIONS)]
    level = _centred_stack([load_table('sp3_lofilt_17x17.csv'), *oriented])
    first = _centred_stack([load_table('sp3_lo0filt_9x9.csv'), load_table('sp3_hi0filt_15x15.csv')])
    return Filters(level, first)


def _centred_stack(kernels: Sequence[np.ndarray]) -> np.ndarray:
    size = max(len(kernel) for kernel in kernels)
    return np.stack([np.pad(kernel, (size - len(kernel)) // 2) for kernel in kernels])


def band_sizes(height: int, width: int) -> list[tuple[int, int]]:
    """Height and width of the bands b = 1..B."""
    levels, floors = 0, (height, width)
    while min(floors) >= SMALLEST_SIDE:
        levels, floors = levels + 1, (floors[0] // 2, floors[1] // 2)
    halved = [(-(-height // 2**level), -(-width // 2**level)) for level in range(levels + 1)]
    return [halved[0], *halved]


def band_frequencies(levels: int, pixels_per_degree: float) -> np.ndarray:
    """Spatial frequency of `levels` bands, cycles per degree: half the sampling rate, then halving."""
    return pixels_per_degree / 2 * 0.5 ** np.arange(levels)


def fast_length(length: int) -> int:
    """The smallest even number, not below `length`, that has no other prime factors than `FFT_FACTORS`."""
    candidate = length + length % 2
    while _without_factors(candidate) > 1:
        candidate += 2
    return candidate


def _without_factors(number: int) -> int:
    for factor in FFT_FACTORS:
        while number % factor == 0:
            number //= factor
    return number


def _radius(kernels: jax.Array) -> int:
    return kernels.shape[-1] // 2


class _Grid(NamedTuple):
    """Where an image lies, with its reflected border, in the array that is transformed."""

    shape: tuple[int, int]
    border: int
    padded: tuple[int, int]

    @classmethod
    def of(cls, shape: tuple[int, int], border: int) -> '_Grid':
        return cls(shape, border, tuple(fast_length(side + 2 * border) for side in shape))

    def spectrum(self, images: jax.Array) -> jax.Array:
        around = [(0, 0)] * (images.ndim - 2) + [(self.border, self.border)] * 2
        return jnp.fft.rfft2(jnp.pad(images, around, mode='reflect'), s=self.padded)

    def filters(self, kernels: jax.Array) -> jax.Array:
        """Transfer functions of centred kernels `[K, k, k]`; the conjugate correlates instead."""
        radius = _radius(kernels)
        rest = [(0, side - kernels.shape[-1]) for side in self.padded]
        return jnp.fft.rfft2(jnp.roll(jnp.pad(kernels, [(0, 0), *rest]), (-radius, -radius), (1, 2)))

    def image(self, spectrum: jax.Array) -> jax.Array:
        whole = jnp.fft.irfft2(spectrum, s=self.padded)
        (height, width), border = self.shape, self.border
        return whole[..., border : border + height, border : border + width]


def decompose(image: jax.Array, filters: Filters) -> list[jax.Array]:
    """The bands of `[H, W]`: `[1, H, W]`, `[4, h, w]` for each level, and `[1, h, w]` for the base."""
    sizes = band_sizes(*image.shape)
    # The first low-pass filter is symmetric, so it commutes with the reflection: one transform serves both
    # it and the first level.
    radius = _radius(filters.level)
    grid = _Grid.of(image.shape, _radius(filters.first) + radius)
    spectrum = grid.spectrum(image)
    low_pass, high_pass = jnp.conj(grid.filters(filters.first))
    bands = [grid.image(spectrum * high_pass)[None]]
    spectrum, low = spectrum * low_pass, None
    for size in sizes[1:-1]:
        if low is not None:
            grid = _Grid.of(size, radius)
            spectrum = grid.spectrum(low)
        filtered = grid.image(spectrum[None] * jnp.conj(grid.filters(filters.level)))
        bands.append(filtered[1:])
        low = filtered[0, ::2, ::2]
    return [*bands, low[None]]


def reconstruct(bands: Sequence[jax.Array], filters: Filters) -> jax.Array:
    """The image `[H, W]` of bands as `decompose` returns them, by the adjoint filters."""
    image = bands[-1][0]
    for band in reversed(bands[1:-1]):
        parts = jnp.concatenate([_upsample(image, band.shape[1:])[None], band])
        image = _sum_of_convolutions(parts, filters.level)
    return _sum_of_convolutions(jnp.stack([image, bands[0][0]]), filters.first)


def _sum_of_convolutions(images: jax.Array, kernels: jax.Array) -> jax.Array:
    grid = _Grid.of(images.shape[1:], _radius(kernels))
    return grid.image((grid.spectrum(images) * grid.filters(kernels)).sum(0))


def _upsample(image: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """`image` on the even rows and columns of zeros of the given shape."""
    config = [(0, full - (2 * side - 1), 1) for full, side in zip(shape, image.shape)]
    return jax.lax.pad(image, jnp.zeros((), image.dtype), config)
