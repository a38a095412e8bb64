"""The mean structural similarity of two images under any window: what all definitions of SSIM share.

SSIM at a value is, with local means m, variances v and covariance k of the images x and y (Wang et al. 2004,
Eq. (13), exponents 1 and C3 = C2 / 2),

    (2 m_x m_y + c1) (2 k + c2) / ((m_x ** 2 + m_y ** 2 + c1) (v_x + v_y + c2)).

With m_d and v_d of the difference d = x - y the same is

    (1 - m_d ** 2 / (m_x ** 2 + m_y ** 2 + c1)) (1 - v_d / (v_x + v_y + c2)),

which takes four local means instead of five and is exactly 1 for equal images, in any precision.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

K1, K2 = 0.01, 0.03  # the stabilising constants are (K * range) ** 2
STRIP = 24  # rows of the result at a time: what is between then stays in the processor's cache
CUT, REPEAT, ZERO = 'cut', 'repeat', 'zero'
_PADDING = {REPEAT: 'edge', ZERO: 'constant'}


@dataclasses.dataclass(frozen=True)
class Window:
    """Where and how local means are taken.

    Attributes:
        weights: along rows, and the same along columns; an odd number of pixels, the sum is 1.
        border: 'cut' takes means only where the window lies inside the image; 'repeat' continues the image by
            its edge, 'zero' by zeros, and there is a mean at every pixel.
        colours: the window runs over the colours too, continued by their first and last.
        sample: variances are those of a sample, times n / (n - 1) for a window of n pixels.
        precision: of all but the sum at the end, which is in float64.
    """

    weights: tuple[float, ...]
    border: str = CUT
    colours: bool = False
    sample: bool = False
    precision: str = 'float64'

    @property
    def side(self) -> int:
        """Pixels."""
        return len(self.weights)

    def padded(self, image: jax.Array) -> jax.Array:
        """`[H, W, C]` continued so far that every pixel of the result has its window."""
        if self.border == CUT:
            return image
        half = self.side // 2
        return jnp.pad(image, ((half, half), (half, half), (0, 0)), _PADDING[self.border])

    def rows_matrix(self, rows: int) -> np.ndarray:
        """The means along columns of so many rows, `[rows, rows + side - 1]`."""
        return sum(weight * np.eye(rows, rows + self.side - 1, k) for k, weight in enumerate(self.weights))

    def colours_matrix(self, channels: int) -> np.ndarray:
        """The means along the colours, `[channels, channels]`."""
        matrix, half = np.zeros((channels, channels)), self.side // 2
        for i in range(channels):
            for k, weight in enumerate(self.weights):
                matrix[i, np.clip(i + k - half, 0, channels - 1)] += weight
        return matrix

    def means(self, image: jax.Array) -> jax.Array:
        """Local means of a padded strip `[rows + side - 1, W, C]`: `[rows, (W - side + 1) * C]`."""
        height, _, channels = image.shape
        if self.colours:
            image = _product(image, self.colours_matrix(channels).T)
        # XLA keeps a matrix product apart from what follows; fused, each sum would be computed `side` times.
        flat = _product(self.rows_matrix(height - self.side + 1), image.reshape(height, -1))
        width = flat.shape[1] - (self.side - 1) * channels
        shifted = (flat[:, k * channels : k * channels + width] for k in range(self.side))
        return sum(weight * part for weight, part in zip(self.weights, shifted))


def gaussian_window(side: int, sigma: float) -> tuple[float, ...]:
    """Weights of a Gaussian, `side` pixels, with the sum 1."""
    distance = np.arange(side) - side // 2
    weights = np.exp(-(distance**2) / (2 * sigma**2))
    return tuple((weights / weights.sum()).tolist())


def mean_similarity(x: jax.Array, y: jax.Array, value_range: jax.Array | float, window: Window) -> jax.Array:
    """Mean SSIM over an image, to be called inside `jax.jit` with 64 bits enabled.

    Args:
        x: `[H, W, C]`, at least as large as the window if the border is cut.
        y: another of its shape.
        value_range: L of the constants c1 = (K1 L) ** 2 and c2 = (K2 L) ** 2.
        window: of the local means.

    Returns:
        A float64 number, 1 for equal images.
    """
    x, y = window.padded(x), window.padded(y)
    rows, columns = (side - window.side + 1 for side in x.shape[:2])
    strip = min(STRIP, rows)
    nominal = strip * np.arange(math.ceil(rows / strip))
    starts = np.minimum(nominal, rows - strip)  # the last strip overlaps its neighbour
    new = starts[:, None] + np.arange(strip) >= nominal[:, None]

    def sums_of_rows(start: jax.Array) -> jax.Array:
        parts = (jax.lax.dynamic_slice_in_dim(i, start, strip + window.side - 1) for i in (x, y))
        values = _similarity(*(part.astype(window.precision) for part in parts), value_range, window)
        return _product(values.astype(jnp.float64), np.ones(values.shape[1]))

    sums = jax.lax.map(sums_of_rows, jnp.asarray(starts))
    return (sums * new).sum() / (rows * columns * x.shape[2])


def _similarity(x: jax.Array, y: jax.Array, value_range: jax.Array | float, window: Window) -> jax.Array:
    """SSIM at every value of a strip, by the second form above."""
    n = window.side**2
    factor = n / (n - 1) if window.sample else 1.0
    c1, c2 = (jnp.asarray((k * value_range) ** 2, window.precision) for k in (K1, K2))
    difference = x - y
    mean_x, mean_d = window.means(x), window.means(difference)
    mean_y = mean_x - mean_d
    of_means = mean_x * mean_x + mean_y * mean_y
    variances = factor * (window.means(x * x + y * y) - of_means)  # of x and y together
    variance_d = factor * (window.means(difference * difference) - mean_d * mean_d)
    return (1 - mean_d * mean_d / (of_means + c1)) * (1 - variance_d / (variances + c2))


def _product(left: jax.Array | np.ndarray, right: jax.Array | np.ndarray) -> jax.Array:
    """The matrix product in the precision of the argument that is traced, whatever JAX's default."""
    dtype = next(array.dtype for array in (left, right) if isinstance(array, jax.Array))
    left, right = jnp.asarray(left, dtype), jnp.asarray(right, dtype)
    return jnp.matmul(left, right, precision=jax.lax.Precision.HIGHEST)
