"""The release's recipe on Kalantari and Ramamoorthi 2017: batch 4, FFT loss, flips.

    python train.py --config=configs/kalantari.py --config.data.dir=DIR --workdir=runs/kalantari
    python eval.py --config=configs/kalantari.py --config.data.dir=DIR --weights=runs/kalantari --out=OUT
"""

from configs import default


def get_config():
    return default.get_config()
