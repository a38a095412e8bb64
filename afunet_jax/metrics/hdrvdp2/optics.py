"""Scattering in the eye: the modulation transfer function, applied by FFT with a dark surround."""

import jax
import jax.numpy as jnp

# MTF(rho) = sum of A exp(-B rho), fitted to the eye's glare; rho in cycles per degree.
MTF_T1, MTF_T2 = 0.061466549455263, 0.99727370023777070
MTF_A = (0.426 * MTF_T2, 0.574 * MTF_T2, (1 - MTF_T2) * MTF_T1, (1 - MTF_T2) * (1 - MTF_T1))
MTF_B = (0.028, 0.37, 37.0, 360.0)
SURROUND = 1e-5  # cd/m2 around the image
DARKEST, BRIGHTEST = 1e-5, 1e10  # range of the retinal image, cd/m2


def frequencies(height: int, width: int, pixels_per_degree: jax.Array) -> jax.Array:
    """Spatial frequencies in cycles per degree of `surrounded_filter`, `[2 height, width + 1]`."""
    dtype = pixels_per_degree.dtype
    down = pixels_per_degree * jnp.fft.fftfreq(2 * height).astype(dtype)
    across = pixels_per_degree * jnp.fft.rfftfreq(2 * width).astype(dtype)
    return jnp.hypot(down[:, None], across[None, :])


def mtf(rho: jax.Array) -> jax.Array:
    """Share of the contrast that the eye's optics pass at `rho` cycles per degree; 1 at 0."""
    return sum(a * jnp.exp(-b * rho) for a, b in zip(MTF_A, MTF_B))


def surrounded_filter(image: jax.Array, transfer: jax.Array, surround: jax.Array | float) -> jax.Array:
    """Filters `[H, W]` in the corner of an array of twice its size that is filled with `surround`.

    Args:
        image: `[H, W]`.
        transfer: transfer function at `frequencies(H, W, ...)`.
        surround: the value around the image.
    """
    height, width = image.shape
    size = (2 * height, 2 * width)
    # The surround is constant, so only the rest is transformed.
    spectrum = jnp.fft.rfft2(image - surround, s=size) * transfer
    return jnp.fft.irfft2(spectrum, s=size)[:height, :width] + surround * transfer[0, 0]


def scattered(light: jax.Array, transfer: jax.Array, surround: float) -> jax.Array:
    """Light `[C, H, W]` blurred by the eye; `transfer` is the `mtf`, `surround` the light around it."""
    return jax.lax.map(lambda channel: surrounded_filter(channel, transfer, surround), light)


def retinal_image(light: jax.Array) -> jax.Array:
    """Scattered light, limited to what the retina is modelled for, cd/m2."""
    return jnp.clip(light, DARKEST, BRIGHTEST)
