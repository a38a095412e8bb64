"""Figures of merit of one image against its ground truth, each on linear or mu-law values."""

from afunet_jax.metrics.psnr import psnr
from afunet_jax.metrics.ssim import ssim, training_ssim

__all__ = ['psnr', 'ssim', 'training_ssim']
