"""Compares our numbers with PyTorch's: `python -m afunet_jax.compare [--weights=PTH_OR_CHECKPOINT] [...]`.

The same weights and the same input go through our network and through PyTorch's: our twin of it
(`torch_twin`), or with `--authors=CLONE` the authors' own class. Compared are every block, the output,
the release's loss and its terms, the gradient of every parameter, and the losses of a few steps of Adam.
All is float32 and in full precision, without stochastic depth; PyTorch runs on the CPU, and so does JAX
unless the environment variable `JAX_PLATFORMS` says otherwise.

The loss is a sum of absolute values, so its gradient jumps where a difference changes its sign. A single
pixel that rounding has put on the other side of its label sets the two runs of Adam on different ways, by
about ten times its share in the image. The steps after such a change of sign are printed, but not judged.

Exit status: 0 every figure is within its tolerance, 1 some are not, 2 the comparison could not be made.
"""

from afunet_jax.compare.differences import Comparison, Tolerances, compare
from afunet_jax.compare.inputs import read_scene
from afunet_jax.compare.networks import authors_network, twin
from afunet_jax.compare.report import format_comparison, to_json

__all__ = [
    'Comparison',
    'Tolerances',
    'authors_network',
    'compare',
    'format_comparison',
    'read_scene',
    'to_json',
    'twin',
]
