"""From a photographer's files to what the network takes.

    bracket = photos.load_bracket(['a.jpg', 'b.jpg', 'c.jpg'])   # or a folder
    scene = bracket.scene()                                      # for evaluation.Network
    radiance = merged * bracket.radiance_scale                   # the same unit in every bracket of a shoot

`frames` reads one photo, `decoders` each format, `exif` what it says of its taking, `colour` converts its ICC profile,
`response` undoes its tone curve, `exposures` finds the stops, `align` removes the shake of a hand and, with `flow`, what
motion can be found, `bracket` puts them together.
"""

from afunet_jax.photos.bracket import Bracket, BracketFiles, find_brackets, load_bracket
from afunet_jax.photos.decoders import is_photo
from afunet_jax.photos.exif import PhotoWarning
from afunet_jax.photos.exposures import measured_steps
from afunet_jax.photos.frames import MAX_PIXELS, Frame, read_frame

__all__ = [
    'MAX_PIXELS', 'Bracket', 'BracketFiles', 'Frame', 'PhotoWarning', 'find_brackets', 'is_photo', 'load_bracket',
    'measured_steps', 'read_frame',
]  # fmt: skip
