"""Our errors in the words of the page: the user's names for files, and which control cures what."""

import pathlib
import re
from collections.abc import Sequence

from afunet_jax.photos import frames

PHOTO = 'photo-{}'  # stem of the files that photos are kept in, by number from 1
_PHOTO = re.compile(PHOTO.format(r'(\d+)') + r'\.?\w*')
NAME_CHARACTERS, ENDING_CHARACTERS = 120, 10  # shown, of a name and of its ending

CURES = (  # what messages name, the page's control, and what it says there
    ('--ev', 'exposures', 'the exposures beside the photos'),
    ('--estimate', 'estimate', 'Measure exposures in the pixels'),
    ('--trust_exposures', 'trust_exposures', 'Go on where EXIF and the pixels disagree'),
    ('curve=', 'curve', 'Tone curve'),
    ('align=', 'align', 'Alignment'),
    ('smaller', 'max_side', 'Size'),
)
INSTEAD = {  # what messages say, and what can be done on the page
    frames.FULL_SCALE_CURE: 'Export the frames so that they are clipped at 1, or merge them with predict.py and '
                            '--full_scale=.',
}  # fmt: skip


def clean(name: str) -> str:
    """A file's name to show: the last part of a path, not too long, without control characters that turn text."""
    last = ''.join(c if c.isprintable() else '\N{REPLACEMENT CHARACTER}' for c in re.split(r'[/\\]', name)[-1])
    if len(last) > NAME_CHARACTERS:
        ending = pathlib.PurePath(last).suffix[:ENDING_CHARACTERS]
        last = last[: NAME_CHARACTERS - len(ending)] + ending
    return last or 'photo'


def with_names(text: str, folder: pathlib.Path, names: Sequence[str]) -> str:
    """A message about the files of a job, with the names and the means that the user has, and without our folder."""
    for said, here in INSTEAD.items():
        text = text.replace(said, here)
    text = text.replace(f'{folder}/', '').replace(str(folder), 'the photos')

    def name(found: re.Match) -> str:
        index = int(found[1]) - 1
        return names[index] if index < len(names) else found[0]

    return _PHOTO.sub(name, text)


def cures(text: str) -> list[dict[str, str]]:
    """The controls of the page that an error's cures name: `control` and `says`."""
    return [{'control': control, 'says': says} for word, control, says in CURES if word in text]
