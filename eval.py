"""Evaluates AFUNet: python eval.py --config=configs/demo.py --weights=DIR_OR_PTH --out=DIR [--config.KEY=VALUE ...]."""

from absl import flags
from ml_collections import config_flags

from afunet_jax import cli, evaluation, parallel
from afunet_jax.models import afunet

_CONFIG = config_flags.DEFINE_config_file('config', 'configs/kalantari.py', 'The recipe.', lock_config=True)
_WEIGHTS = flags.DEFINE_string('weights', None, 'A .pth, a checkpoint or a workdir of train.py.', required=True)
_OUT = flags.DEFINE_string('out', None, 'Tables and pictures go here.', required=True)


def main(_) -> None:
    parallel.use_compilation_cache()
    config = _CONFIG.value
    evaluation.run(afunet.build(config.model), config, _WEIGHTS.value, _OUT.value)


if __name__ == '__main__':
    cli.run(main)
