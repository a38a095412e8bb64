"""Evaluates AFUNet: python eval.py --config=configs/demo.py [--weights=DIR_OR_FILE] --out=DIR [--config.KEY=VALUE]."""

import sys

from absl import flags
from ml_collections import config_flags

from afunet_jax import cli, evaluation, parallel, safetensors_weights
from afunet_jax.models import afunet

_CONFIG = config_flags.DEFINE_config_file('config', 'configs/kalantari.py', 'The recipe.', lock_config=True)
_WEIGHTS = flags.DEFINE_string(
    'weights', '', 'A .safetensors, a .pth, a checkpoint or a workdir of train.py; none: those of the package.'
)
_OUT = flags.DEFINE_string('out', None, 'Tables and pictures go here.', required=True)


def main(_) -> None:
    parallel.use_compilation_cache()
    config, weights = _CONFIG.value, _WEIGHTS.value
    if not weights:
        weights = safetensors_weights.packaged()
        ours = afunet.architecture(safetensors_weights.read(weights)[0]['model'])
        whose = "the config's" if afunet.architecture(config.model) == ours else "not the config's network"
        print(f'no --weights: those of the package are evaluated, {weights}, {whose}', file=sys.stderr)
        config.model.update(ours)
    evaluation.run(afunet.build(config.model), config, weights, _OUT.value)


if __name__ == '__main__':
    cli.run(main)
