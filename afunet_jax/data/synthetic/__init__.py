"""Procedural HDR scenes with moving figures: training and test data without a download.

Every scene is a painted world of 14 stops and more (streets, a room, an archway, a garden, a shore,
hills), seen by a shaken camera through a noisy sensor at three exposures. `make_scene` makes one in
memory, `ensure_scenes` writes a set in Kalantari's layout, and `python -m afunet_jax.data.synthetic`
does so from the command line.

Inside: `textures`, `canvas` and `sprites` are the paint; `sky`, `street`, `nature` and `rooms` the
backdrops; `actors` what moves; `compose` puts a scene together; `sensor` photographs it.
"""

from afunet_jax.data.synthetic.compose import EV_CHOICES, KINDS, make_scene, render
from afunet_jax.data.synthetic.folders import ensure_scenes, write_scenes
from afunet_jax.data.synthetic.sensor import NOISELESS, Noise
from afunet_jax.data.synthetic.sheet import contact_sheet

__all__ = [
    'EV_CHOICES',
    'KINDS',
    'NOISELESS',
    'Noise',
    'contact_sheet',
    'ensure_scenes',
    'make_scene',
    'render',
    'write_scenes',
]
