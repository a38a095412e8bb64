"""The release's recipe on Challenge123 (Kong et al. 2024; 96 training scenes).

    python train.py --config=configs/challenge123.py --config.data.dir=DIR --workdir=runs/challenge123
"""

from configs import default


def get_config():
    config = default.get_config()
    config.data.layout = 'challenge123'
    config.train.steps = 960_000  # 400 epochs of 96 scenes, 100 crops each, in batches of 4
    return config
