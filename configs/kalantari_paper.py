"""The paper's recipe on Kalantari and Ramamoorthi 2017: batch 6, VGG loss, flips and rotations.

    python train.py --config=configs/kalantari_paper.py --config.data.dir=DIR \
        --config.loss.vgg_weights=vgg19.pth --workdir=runs/kalantari_paper

`vgg19.pth` is torchvision's state dict of VGG-19, which you download yourself.
"""

from configs import default


def get_config():
    config = default.get_config()
    config.loss.name = 'paper'
    config.train.batch_size = 6
    config.train.steps = 493_333  # 400 epochs of 74 scenes, 100 crops each, in batches of 6
    config.train.augmentation = 'flips_and_rotations'
    return config
