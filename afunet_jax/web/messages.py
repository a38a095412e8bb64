"""Our errors in the words of the page: the user's names for files, and which control cures what."""

import pathlib
import re
from collections.abc import Sequence

PHOTO = 'photo-{}'  # stem of the files that photos are kept in, by number from 1
_PHOTO = re.compile(PHOTO.format(r'(\d+)') + r'\.?\w*')
NAME_CHARACTERS = 120

CURES = (  # what messages name, the page's control, and what it says there
    ('--ev', 'exposures', 'the exposures beside the photos'),
    ('--estimate', 'estimate', 'Measure exposures in the pixels'),
    ('--trust_exposures', 'trust_exposures', 'Go on where EXIF and the pixels disagree'),
    ('curve=', 'curve', 'Tone curve'),
    ('align=', 'align', 'Alignment'),
    ('smaller', 'max_side', 'Size'),
)


def clean(name: str) -> str:
    """A file's name to show: the last part of a path, without control characters and marks that turn text."""
    last = re.split(r'[/\\]', name)[-1]
    return ''.join(c if c.isprintable() else '\N{REPLACEMENT CHARACTER}' for c in last)[:NAME_CHARACTERS] or 'photo'


def with_names(text: str, folder: pathlib.Path, names: Sequence[str]) -> str:
    """A message about the files of a job, with the names that the user knows, and without our folder."""
    text = text.replace(f'{folder}/', '').replace(str(folder), 'the photos')

    def name(found: re.Match) -> str:
        index = int(found[1]) - 1
        return names[index] if index < len(names) else found[0]

    return _PHOTO.sub(name, text)


def cures(text: str) -> list[dict[str, str]]:
    """The controls of the page that an error's cures name: `control` and `says`."""
    return [{'control': control, 'says': says} for word, control, says in CURES if word in text]
