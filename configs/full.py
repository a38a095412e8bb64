"""The full network on brackets of the project's own, on one GPU, in sittings as short as 20 minutes.

    python -m afunet_jax.data.brackets --hdr=HDR_IMAGES --out=data/brackets --seed=1 \\
        --train=300 --validation=12 --test=30
    python -m afunet_jax.data.brackets --hdr=HDR_IMAGES --out=data/brackets_5 --seed=4 \\
        --train=2400 --validation=24 --test=0 --static=0.35 --graded=0.7 --steps 0.7 4 --jpeg=0.3
    timeout 20m python train.py --config=configs/full.py --workdir=runs/full

These data sets are the small network's. The last line is one sitting: at its end the run saves, and the same line goes
on. Then a blending head behind it, by the errors it predicts and then by what it mixes, and both on the test scenes:

    HEAD="--config=configs/full.py --config.model.head=blend"
    python train.py $HEAD --workdir=runs/full_head --weights=runs/full \\
        --config.optimizer.learning_rate=1.5e-3 --config.train.steps=4000 --config.validation.every=500
    python -m afunet_jax.data.brackets --hdr=HDR_IMAGES --out=data/brackets_6 --seed=6 \\
        --train=700 --validation=24 --test=0 --static=0.35 --graded=0.5 --steps 0.7 4 --jpeg=0.2 --aligned=0.85
    python train.py $HEAD --config.data.dir=data/brackets_6 --workdir=runs/full_mixture --weights=runs/full_head \\
        --config.loss.blend=mixture --config.optimizer.learning_rate=1e-3 --config.train.steps=1000 \\
        --config.validation.every=500
    python eval.py $HEAD --config.data.dir=data/brackets --weights=runs/full_mixture --out=runs/full_mixture/eval

HDR_IMAGES is a folder of the images in afunet_jax/data/brackets/sources.csv. Batch and steps are a guess at what a GPU
with 80 GB does in an hour or two: no figure of this recipe was measured.
"""

from configs import default


def get_config():
    config = default.get_config()
    config.model.dtype = 'bfloat16'
    config.data.dir = 'data/brackets_5'
    config.data.layout = 'synthetic'
    config.train.update(
        batch_size=16, steps=40_000, crops_per_scene=32, augmentation='flips_and_rotations', checkpoint_every=1_000
    )
    config.validation.update(scenes=24, every=4_000)
    config.eval.align = 'flow'
    return config
