"""The release's recipe on Hu et al. 2020 (85 training scenes).

    python train.py --config=configs/hu.py --config.data.dir=DIR --workdir=runs/hu
"""

from configs import default


def get_config():
    config = default.get_config()
    config.data.layout = 'hu'
    config.train.steps = 850_000  # 400 epochs of 85 scenes, 100 crops each, in batches of 4
    return config
