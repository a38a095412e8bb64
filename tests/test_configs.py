"""Every shipped config: its network's exact size, and that each of its keys is one of the default's."""

import importlib
import pathlib

import pytest

from afunet_jax import losses
from afunet_jax.data import batches, layouts
from afunet_jax.models import afunet
from configs import default, variants

FOLDER = pathlib.Path(default.__file__).parent
FULL = 1_161_987  # the release counts 48 more, of a LayerNorm that it never calls
PARAMETERS = {
    'default': FULL, 'kalantari': FULL, 'kalantari_paper': FULL, 'tel': FULL, 'hu': FULL, 'challenge123': FULL,
    'full': FULL,
    'demo': 86_787, 'small': 254_554, 'tiny': 5_331,
    'variants:T2': 585_975, 'variants:T3': 873_981, 'variants:T4': FULL, 'variants:T5': 1_449_993, 'variants:T6': 1_737_999,
    'variants:FA': 1_151_055, 'variants:M1': 1_078_875, 'variants:M2': 1_122_603, 'variants:M3': 1_142_971, 'variants:M4': FULL,
}  # fmt: skip


def load(name):
    module, _, argument = name.partition(':')
    get_config = importlib.import_module(f'configs.{module}').get_config
    return get_config(argument) if argument else get_config()


def keys(config, prefix=''):
    for key, value in config.items():
        yield from keys(value, f'{prefix}{key}.') if hasattr(value, 'items') else [f'{prefix}{key}']


def test_every_shipped_config_is_in_the_table():
    shipped = {path.stem for path in FOLDER.glob('*.py')} - {'__init__', 'variants'}
    shipped |= {f'variants:{name}' for name in variants.VARIANTS}
    assert shipped == set(PARAMETERS)


@pytest.mark.parametrize('name', PARAMETERS)
def test_number_of_parameters(name):
    shapes = afunet.parameter_shapes(afunet.build(load(name).model))
    assert afunet.count_parameters(shapes) == PARAMETERS[name]


@pytest.mark.parametrize('name', PARAMETERS)
def test_a_config_changes_values_and_adds_no_key(name):
    assert sorted(keys(load(name))) == sorted(keys(default.get_config()))


@pytest.mark.parametrize('name', PARAMETERS)
def test_names_in_a_config_exist(name):
    config = load(name)
    layouts.get_layout(config.data.layout)
    assert config.train.augmentation in batches.AUGMENTATIONS
    if config.loss.name != 'paper':
        losses.make_loss(config.loss.name)


def test_an_unknown_variant_names_the_known_ones():
    with pytest.raises(ValueError, match='M1.*M9'):
        load('variants:M9')


def test_every_key_of_the_default_is_read_somewhere():
    root = FOLDER.parent
    text = ''.join(path.read_text() for path in [*root.glob('*.py'), *(root / 'afunet_jax').rglob('*.py')])
    unread = [key for key in keys(default.get_config()) if key.rpartition('.')[2] not in text]
    assert not unread
