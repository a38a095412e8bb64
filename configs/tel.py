"""The release's recipe on Tel et al. 2023 (108 training scenes).

    python train.py --config=configs/tel.py --config.data.dir=DIR --workdir=runs/tel
"""

from configs import default


def get_config():
    config = default.get_config()
    config.data.layout = 'tel'
    config.train.steps = 1_080_000  # 400 epochs of 108 scenes, 100 crops each, in batches of 4
    return config
