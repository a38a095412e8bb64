"""HDR-VDP-2.2.1, the visual difference predictor that HDR papers report, after Mantiuk et al. 2011.

R. Mantiuk, K. J. Kim, A. G. Rempel, W. Heidrich: HDR-VDP-2, a calibrated visual metric for visibility and
quality predictions in all luminance conditions, SIGGRAPH 2011. Where paper and code of version 2.2.1
differ, this follows the code.

The parts in their order: `viewing` (settings and presets), `checks`, `display`, `optics`, `receptors`,
`pyramid`, `csf`, `masking`, `pooling`, joined in `metric`; `resizing` and `stored` serve them. In all of
them `test` is the prediction and `reference` the ground truth, unless a preset swaps the two.
"""

from afunet_jax.metrics.hdrvdp2.metric import HdrVdp2, hdrvdp2, hdrvdp2_batch
from afunet_jax.metrics.hdrvdp2.viewing import PRESETS, Viewing

__all__ = ['PRESETS', 'HdrVdp2', 'Viewing', 'hdrvdp2', 'hdrvdp2_batch']
