"""A small AFUNet on built-in scenes: trains and evaluates in minutes on two CPU cores.

    python train.py --config=configs/demo.py --workdir=runs/demo
    python eval.py --config=configs/demo.py --weights=runs/demo --out=runs/demo/eval
"""

from configs import default


def get_config():
    config = default.get_config()
    config.model.update(num_stages=2, width=36, sfm_depth=2, sfm_heads=2, drop_path=0.0)
    config.data.dir = 'data/demo'
    config.data.layout = 'synthetic'
    config.data.synthetic.update(train_scenes=24, test_scenes=6, height=256, width=384)
    config.optimizer.update(learning_rate=2e-3, final_learning_rate=2e-5, epochs=100)
    config.train.update(
        batch_size=4, steps=600, crop_size=64, crops_per_scene=32, log_every=50, checkpoint_every=200
    )
    config.validation.update(scenes=2, every=300)
    config.eval.align = 'flow'  # as photos are aligned
    return config
