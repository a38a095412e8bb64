"""The small network whose weights come with the package: three stages, trained in twelve hours on two CPU cores.

    ONE="--config=configs/small.py --config.model.head=sigmoid --config.model.num_stages=1"
    TWO="--config=configs/small.py --config.model.head=sigmoid --config.model.num_stages=2"
    THREE="--config=configs/small.py --config.model.head=sigmoid"
    MORE="--config.data.dir=data/brackets_2 --config.validation.scenes=24"
    python -m afunet_jax.data.brackets --hdr=HDR_IMAGES --out=data/brackets --seed=1 \\
        --train=300 --validation=12 --test=30
    python train.py $ONE --workdir=runs/1
    python train.py $ONE --workdir=runs/2 --weights=runs/1 --config.seed=444 --config.optimizer.learning_rate=1e-3
    python train.py $ONE --workdir=runs/3 --weights=runs/2 --config.seed=555 --config.optimizer.learning_rate=6e-4 \\
        --config.train.steps=10000
    python -m afunet_jax.data.brackets --hdr=HDR_IMAGES --out=data/brackets_2 --seed=2 \\
        --train=1200 --validation=24 --test=0 --static=0.35
    python train.py $ONE $MORE --workdir=runs/4 --weights=runs/3 --config.seed=777 \\
        --config.optimizer.learning_rate=8e-4 --config.train.steps=24000 --config.validation.every=4000
    python train.py $ONE $MORE --workdir=runs/5 --weights=runs/4 --config.seed=888 \\
        --config.optimizer.learning_rate=8e-4 --config.train.steps=30000 --config.validation.every=5000
    python train.py $ONE $MORE --workdir=runs/6 --weights=runs/5 --config.seed=999 \\
        --config.optimizer.learning_rate=6e-4 --config.train.steps=16000 --config.validation.every=4000
    python train.py $TWO $MORE --workdir=runs/7 --weights=runs/6 --grow --config.seed=1111 \\
        --config.optimizer.learning_rate=8e-4 --config.train.steps=24000 --config.validation.every=4000
    python -m afunet_jax.data.brackets --hdr=HDR_IMAGES --out=data/brackets_3 --seed=3 \\
        --train=1200 --validation=24 --test=0 --static=0.35 --graded=0.7
    GRADED="--config.data.dir=data/brackets_3 --config.validation.scenes=24"
    python train.py $TWO $GRADED --workdir=runs/8 --weights=runs/7 --config.seed=1212 \\
        --config.optimizer.learning_rate=8e-4 --config.train.steps=30000 --config.validation.every=5000
    python -m afunet_jax.data.brackets --hdr=HDR_IMAGES --out=data/brackets_4 --seed=4 \\
        --train=1200 --validation=24 --test=0 --static=0.35 --graded=0.7 --steps 0.7 4
    STEPS="--config.data.dir=data/brackets_4 --config.validation.scenes=24"
    python train.py $TWO $STEPS --workdir=runs/9 --weights=runs/8 --config.seed=1313 \\
        --config.optimizer.learning_rate=8e-4 --config.train.steps=26000 --config.validation.every=5000
    python -m afunet_jax.data.brackets --hdr=HDR_IMAGES --out=data/brackets_5 --seed=4 \\
        --train=2400 --validation=24 --test=0 --static=0.35 --graded=0.7 --steps 0.7 4 --jpeg=0.3
    JPEG="--config.data.dir=data/brackets_5 --config.validation.scenes=24"
    python train.py $THREE $JPEG --workdir=runs/10 --weights=runs/9 --grow --config.seed=1414 \\
        --config.optimizer.learning_rate=6e-4 --config.train.steps=30000 --config.validation.every=5000
    python train.py $THREE $JPEG --workdir=runs/11 --weights=runs/10 --config.seed=1515 \\
        --config.optimizer.learning_rate=3e-4 --config.optimizer.final_learning_rate=2e-6 \\
        --config.train.batch_size=4 --config.train.crop_size=96 --config.train.steps=4000 \\
        --config.train.checkpoint_every=500 --config.validation.every=1000
    python train.py --config=configs/small.py $JPEG --workdir=runs/12 --weights=runs/11 --config.seed=667 \\
        --config.optimizer.learning_rate=1.5e-3 --config.train.batch_size=4 --config.train.steps=6000 \\
        --config.train.checkpoint_every=500 --config.validation.every=1000
    ALIGNED="--static=0.35 --graded=0.5 --steps 0.7 4 --jpeg=0.2 --aligned=0.85"
    MIXTURE="--config=configs/small.py --config.loss.blend=mixture --config.optimizer.learning_rate=1e-3 \\
        --config.train.batch_size=4 --config.train.crop_size=96"
    python -m afunet_jax.data.brackets --hdr=HDR_IMAGES --out=data/brackets_6 --seed=6 \\
        --train=700 --validation=24 --test=0 $ALIGNED
    python train.py $MIXTURE --config.data.dir=data/brackets_6 --config.validation.scenes=24 --workdir=runs/13 \\
        --weights=runs/12 --config.seed=778 --config.train.steps=2000 --config.train.checkpoint_every=500 \\
        --config.validation.every=1000
    python -m afunet_jax.data.brackets --hdr=HDR_IMAGES --out=data/brackets_7 --seed=7 \\
        --train=640 --validation=16 --test=0 $ALIGNED
    python train.py $MIXTURE --config.data.dir=data/brackets_7 --config.validation.scenes=16 --workdir=runs/14 \\
        --weights=runs/13 --config.seed=889 --config.train.steps=3200 --config.train.checkpoint_every=400 \\
        --config.train.log_every=50 --config.validation.every=800
    python eval.py --config=configs/small.py --weights=runs/14 --out=runs/14/eval
    python -m afunet_jax.packaging --before=runs/1 --before=runs/2 --before=runs/3 --before=runs/4 --before=runs/5 \\
        --before=runs/6 --before=runs/7 --before=runs/8 --before=runs/9 --before=runs/10 --before=runs/11 \\
        --before=runs/12 --before=runs/13 --workdir=runs/14 --results=runs/14/eval \\
        --data=data/brackets/brackets.json --data=data/brackets_2/brackets.json --data=data/brackets_3/brackets.json \\
        --data=data/brackets_4/brackets.json --data=data/brackets_5/brackets.json \\
        --data=data/brackets_6/brackets.json --data=data/brackets_7/brackets.json

HDR_IMAGES is a folder of the images in afunet_jax/data/brackets/sources.csv. A training begins anew with a high
learning rate from the weights of the one before: so sittings add up whose number nobody knows at the start. The first
six train one stage, which takes half as long a step; the seventh adds a second, the eighth sees scenes of other
colours, the ninth any steps from 0.7 to 4 EV, the tenth adds a third stage and sees JPEGs, the eleventh takes larger
batches of larger crops. The last three train the blending head behind them, which they leave as they are, on many
scenes that stand still: it is there that photos should be taken as they are. First it learns to predict errors, then,
on aligned frames, by the PSNR-mu of what it mixes, and from that also to take noise out (the packaged one could not
before its last training). The network is trained on frames as they are, and merges aligned ones
(`eval.align`); the validations of its trainings and of the first one of its head were still of frames as they are.
From the packaged weights a further sitting begins with `--weights=afunet_jax/weights/afunet_small.safetensors
--config.model.head=sigmoid`, and is packaged with `--before=` that file.
"""

from configs import default


def get_config():
    config = default.get_config()
    config.model.update(num_stages=3, width=48, sfm_depth=2, sfm_heads=2, drop_path=0.0, head='blend')
    config.data.dir = 'data/brackets'
    config.data.layout = 'synthetic'
    config.optimizer.update(learning_rate=2e-3, final_learning_rate=1e-5, epochs=400)
    config.train.update(
        batch_size=2, steps=20_000, crop_size=64, crops_per_scene=32, augmentation='flips_and_rotations',
        log_every=200, checkpoint_every=1_000,
    )  # fmt: skip
    config.validation.update(scenes=12, every=2_000)
    config.eval.align = 'flow'
    return config
