"""The small network whose weights come with the package: one stage, trained in five hours on two CPU cores.

    python -m afunet_jax.data.brackets --hdr=HDR_IMAGES --out=data/brackets --seed=1 \\
        --train=300 --validation=12 --test=30
    python train.py --config=configs/small.py --workdir=runs/small --config.model.head=sigmoid
    python train.py --config=configs/small.py --workdir=runs/small_2 --weights=runs/small --config.model.head=sigmoid \\
        --config.seed=444 --config.optimizer.learning_rate=1e-3
    python train.py --config=configs/small.py --workdir=runs/small_3 --weights=runs/small_2 \\
        --config.model.head=sigmoid --config.seed=555 --config.optimizer.learning_rate=6e-4 --config.train.steps=10000
    python -m afunet_jax.data.brackets --hdr=HDR_IMAGES --out=data/brackets_2 --seed=2 \\
        --train=1200 --validation=24 --test=0 --static=0.35
    python train.py --config=configs/small.py --workdir=runs/small_4 --weights=runs/small_3 \\
        --config.model.head=sigmoid --config.data.dir=data/brackets_2 --config.seed=777 \\
        --config.optimizer.learning_rate=8e-4 --config.train.steps=24000 \\
        --config.validation.scenes=24 --config.validation.every=4000
    python train.py --config=configs/small.py --workdir=runs/small_5 --weights=runs/small_4 \\
        --config.model.head=sigmoid --config.data.dir=data/brackets_2 --config.seed=888 \\
        --config.optimizer.learning_rate=8e-4 --config.train.steps=30000 \\
        --config.validation.scenes=24 --config.validation.every=5000
    python train.py --config=configs/small.py --workdir=runs/small_6 --weights=runs/small_5 \\
        --config.data.dir=data/brackets_2 --config.seed=666 --config.optimizer.learning_rate=1.5e-3 \\
        --config.train.batch_size=4 --config.train.steps=5000 --config.train.checkpoint_every=500 \\
        --config.validation.scenes=24 --config.validation.every=500
    python eval.py --config=configs/small.py --weights=runs/small_6 --out=runs/small_6/eval
    python -m afunet_jax.packaging --before=runs/small --before=runs/small_2 --before=runs/small_3 \\
        --before=runs/small_4 --before=runs/small_5 --workdir=runs/small_6 --results=runs/small_6/eval \\
        --data=data/brackets/brackets.json --data=data/brackets_2/brackets.json

HDR_IMAGES is a folder of the images in afunet_jax/data/brackets/sources.csv. A training begins anew with a high
learning rate from the weights of the one before: so sittings add up whose number nobody knows at the start. The last
one trains the blending head behind the network of the fifth, which it leaves as it is, on many scenes that stand
still: it is there that photos should be taken as they are. From the packaged weights a further sitting begins with
`--weights=afunet_jax/weights/afunet_small.safetensors --config.model.head=sigmoid`, and is packaged with `--before=`
that file.
"""

from configs import default


def get_config():
    config = default.get_config()
    config.model.update(num_stages=1, width=48, sfm_depth=2, sfm_heads=2, drop_path=0.0, head='blend')
    config.data.dir = 'data/brackets'
    config.data.layout = 'synthetic'
    config.optimizer.update(learning_rate=2e-3, final_learning_rate=1e-5, epochs=400)
    config.train.update(
        batch_size=2, steps=20_000, crop_size=64, crops_per_scene=32, augmentation='flips_and_rotations',
        log_every=200, checkpoint_every=1_000,
    )  # fmt: skip
    config.validation.update(scenes=12, every=2_000)
    return config
