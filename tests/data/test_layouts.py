"""The table of layouts is whole and consistent."""

import pytest

from afunet_jax.data.layouts import LAYOUTS, SPLITS, get_layout
from afunet_jax.errors import ConfigError


def test_the_benchmarks_and_their_sizes():
    assert {name: tuple(layout.expected.values()) for name, layout in LAYOUTS.items()} == {
        'kalantari': (74, 15), 'tel': (108, 36), 'hu': (85, 15),
        'tursun': (None, 16), 'challenge123': (96, 27), 'synthetic': (None, None)}


@pytest.mark.parametrize('layout', LAYOUTS.values(), ids=LAYOUTS)
def test_every_row_is_whole(layout):
    assert get_layout(layout.name) is layout and tuple(layout.expected) == SPLITS
    assert all(pattern.count('{scene}') == 1 for pattern in layout.scene)
    files = [*layout.ldrs, layout.exposures, *([layout.label] if layout.label else [])]
    # Each file lies in a folder that marks a scene: otherwise it would never be found.
    assert {pattern.rpartition('/')[0] for pattern in files} <= set(layout.scene)
    for split in SPLITS:
        assert all(names for names in layout.folders(split))


def test_unknown_names_list_the_known():
    with pytest.raises(ConfigError, match='kalantary.*kalantari, tel, hu, tursun, challenge123'):
        get_layout('kalantary')
    with pytest.raises(ConfigError, match='train, test.*validation'):
        get_layout('tel').folders('validation')
