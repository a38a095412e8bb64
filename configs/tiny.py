"""Thirty steps of a very small network on built-in scenes, under a minute: for tests and for whoever looks in.

    python train.py --config=configs/tiny.py --workdir=DIR
    python eval.py --config=configs/tiny.py --weights=DIR --out=DIR/eval
"""

from configs import default


def get_config():
    config = default.get_config()
    config.model.update(num_stages=1, width=12, sfm_depth=1, sfm_heads=2, sam_heads=1, cfm_heads=1)
    config.data.dir = 'data/tiny'
    config.data.layout = 'synthetic'
    config.data.synthetic.update(train_scenes=4, test_scenes=2, height=128, width=192)
    config.optimizer.update(learning_rate=2e-3, final_learning_rate=2e-5, epochs=30)
    config.train.update(
        batch_size=4, steps=30, crop_size=32, crops_per_scene=16, log_every=10, checkpoint_every=15
    )
    config.validation.update(scenes=1, every=15)
    config.eval.metrics = ('psnr_l', 'psnr_mu', 'ssim_l', 'ssim_mu')  # HDR-VDP-2 takes longer than all the rest
    return config
