"""Figures of merit of one image against its ground truth, each on linear, mu-law or absolute values.

`registry.METRICS` has all of them by name.
"""

from afunet_jax.metrics.hdrvdp2 import HdrVdp2, Viewing, hdrvdp2, hdrvdp2_batch
from afunet_jax.metrics.psnr import psnr
from afunet_jax.metrics.pu21 import pu21_encode, pu21_psnr, pu21_ssim
from afunet_jax.metrics.ssim import ssim, training_ssim
from afunet_jax.metrics.ssim_variants import matlab_ssim, skimage_default_ssim, skimage_ssim

__all__ = [
    'HdrVdp2', 'Viewing', 'hdrvdp2', 'hdrvdp2_batch', 'matlab_ssim', 'psnr', 'pu21_encode', 'pu21_psnr', 'pu21_ssim',
    'skimage_default_ssim', 'skimage_ssim', 'ssim', 'training_ssim',
]  # fmt: skip
