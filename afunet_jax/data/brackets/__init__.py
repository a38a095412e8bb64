"""Brackets of moving scenes from real HDR images: training and test data with real light.

A scene is a view of a panorama or a crop of a photograph, seen three times by a shaken camera, with cut-out
regions and figures that move in front of it, and photographed by a noisy sensor. `make_bracket` makes one in
memory, `write_brackets` writes a set in Kalantari's layout, and `python -m afunet_jax.data.brackets` does so
from the command line. Scenes of `data.synthetic` are mixed in.

Inside: `sources` is which images there are, and whose; `views` samples them; `layers` is what moves;
`compose` puts a scene together; `folders` writes a set. Which image serves which split stands in
`sources.csv`: an image of one split never appears in another, neither whole nor as a cut-out.
"""

from afunet_jax.data.brackets.compose import Shares, make_bracket
from afunet_jax.data.brackets.folders import Request, write_brackets
from afunet_jax.data.brackets.sources import SPLITS, Source, read_sources

__all__ = ['SPLITS', 'Request', 'Shares', 'Source', 'make_bracket', 'read_sources', 'write_brackets']
