"""Trains AFUNet: python train.py --config=FILE --workdir=DIR [--weights=PATH [--grow]] [--config.KEY=VALUE ...]."""

from absl import flags
from ml_collections import config_flags

from afunet_jax import cli, parallel, training
from afunet_jax.models import afunet

_CONFIG = config_flags.DEFINE_config_file('config', 'configs/kalantari.py', 'The recipe.', lock_config=True)
_WORKDIR = flags.DEFINE_string('workdir', None, 'Of checkpoints and logs; a run there is continued.', required=True)
_WEIGHTS = flags.DEFINE_string('weights', '', 'Initial weights: a .pth, a checkpoint or a workdir.')
_GROW = flags.DEFINE_bool('grow', False, 'The weights may have fewer stages than the config: the rest is added.')
_COORDINATOR = flags.DEFINE_string('coordinator', None, 'Several hosts: host:port of process 0.')
_NUM_PROCESSES = flags.DEFINE_integer('num_processes', None, 'Several hosts: number of processes.')
_PROCESS_ID = flags.DEFINE_integer('process_id', None, 'Several hosts: number of this process, from 0.')


def main(_) -> None:
    parallel.use_compilation_cache()
    parallel.start(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
    config = _CONFIG.value
    with parallel.together():
        training.run(afunet.build(config.model), config, _WORKDIR.value, _WEIGHTS.value, _GROW.value)


if __name__ == '__main__':
    with parallel.leaving_at_once():
        cli.run(main)
