"""Every value that a user may want to change, once, with its unit and source.

The defaults are the release's recipe on Kalantari's data set. An experiment is a file beside this one
that holds only what differs. On the command line: `--config.train.batch_size=8`; an unknown key is an error.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """The release's recipe."""
    config = ml_collections.ConfigDict()
    config.seed = 443  # of initial values, data order and stochastic depth (the release's)
    config.model = model()
    config.data = data()
    config.loss = loss()
    config.optimizer = optimizer()
    config.train = train()
    config.validation = validation()
    config.eval = evaluation()
    return config


def model() -> ml_collections.ConfigDict:
    """The network: attributes of `afunet_jax.models.afunet.AFUNet`."""
    c = ml_collections.ConfigDict()
    c.num_stages = 4  # T, unfolded stages; 2 to 6 in Table 6
    c.width = 72  # channels of the fused features, a third for each exposure
    c.sfm_depth = 5  # Swin blocks in a spatial fusion module
    c.sfm_heads = 4
    c.sam_heads = 2
    c.cfm_heads = 2
    c.window_size = 8  # pixels
    c.mlp_ratio = 2  # hidden over outer width
    c.drop_path = 0.1  # largest rate of stochastic depth
    c.order = 'AF'  # or 'FA': fusion before alignment (Table 5)
    c.ablation = 'M4'  # or 'M1' to 'M3' (Table 4)
    c.head = 'sigmoid'  # Eq. (16), or 'blend' with the exposures, pixel by pixel (ours: afunet_jax/models/blend.py)
    c.chunk_windows = -1  # windows of the widest maps at once; 0: all; -1: 32 on a CPU, else all. Speed and memory only
    c.remat = 'auto'  # gradients recompute the blocks' inside: 'on', 'off', 'auto': on a CPU. Memory and speed only
    c.attention = 'plain'  # of windows: by XLA, or 'fused': by one kernel on a GPU. Speed and memory only
    c.dtype = 'float32'  # of feature maps and products, or 'bfloat16'; parameters and sums are float32 in any case
    c.precision = 'highest'  # of float32 products, or 'default', the device's: TF32 on NVIDIA GPUs, the same on CPUs
    return c


def data() -> ml_collections.ConfigDict:
    """Where the scenes are."""
    c = ml_collections.ConfigDict()
    c.dir = ''  # folder of the data set
    c.layout = 'kalantari'  # see afunet_jax/data/layouts.py
    c.prepared_dir = 'data/prepared'  # where the TFDS copy for training goes
    c.follow_links = False  # symbolic links that lead out of `dir`
    c.max_pixels = 160_000_000  # of one image; larger ones are refused from their header
    c.subtract_min_ev = False  # shift exposures so that the first is EV 0; the released weights do without
    c.synthetic = ml_collections.ConfigDict()  # built-in scenes, written to `dir` on first use
    c.synthetic.train_scenes = 0  # 0: `dir` holds a real data set
    c.synthetic.test_scenes = 0
    c.synthetic.height = 256  # pixels
    c.synthetic.width = 384  # pixels
    c.synthetic.seed = 0
    return c


def loss() -> ml_collections.ConfigDict:
    """Eq. (17): mean absolute difference of mu-law images, plus a second term. A blending head has its own losses."""
    c = ml_collections.ConfigDict()
    c.name = 'release'  # second term: 'release' Fourier, 'paper' VGG-19, 'reconstruction' none
    c.weight = 0.005  # of the second term
    c.vgg_weights = ''  # torchvision's vgg19 state dict (.pth or .npz), for 'paper'
    c.blend = 'errors'  # of a blending head: learns to predict errors, or then, by the PSNR-mu it is for, 'mixture'
    return c


def optimizer() -> ml_collections.ConfigDict:
    """Adam with a cosine that is constant within an epoch."""
    c = ml_collections.ConfigDict()
    c.learning_rate = 5e-4  # of the first epoch
    c.final_learning_rate = 5e-6  # the cosine's end
    c.epochs = 400  # train.steps are divided into this many
    c.b1 = 0.9
    c.b2 = 0.999
    c.eps = 1e-8
    return c


def train() -> ml_collections.ConfigDict:
    """Batches, length, and what is written when."""
    c = ml_collections.ConfigDict()
    c.batch_size = 4  # over all devices (the paper: 6)
    c.steps = 740_000  # 400 epochs of 74 scenes, 100 crops each, in batches of 4; of the 70 that validation leaves, 423
    c.crop_size = 128  # pixels
    c.crops_per_scene = 100  # in an epoch
    c.augmentation = 'flips'  # or 'flips_and_rotations' (the paper), 'none'
    c.threads = 2  # that cut batches ahead; their number changes no value
    c.log_every = 100  # steps
    c.checkpoint_every = 2_000  # steps
    c.non_finite = 'stop'  # the run at a loss or gradient that is not finite; or 'skip' that step, and count it
    c.non_finite_limit = 100  # steps that a run may skip before it stops
    c.keep_checkpoints = 2  # latest ones; the best by validation is kept besides
    return c


def validation() -> ml_collections.ConfigDict:
    """Training scenes held back to choose the best checkpoint; the test set is never used for that."""
    c = ml_collections.ConfigDict()
    c.scenes = 4  # the last ones by name; 0 trains on all
    c.every = 10_000  # steps
    return c


def evaluation() -> ml_collections.ConfigDict:
    """Evaluation on whole images."""
    c = ml_collections.ConfigDict()
    c.split = 'test'  # or 'train'
    c.align = 'off'  # or 'translation', 'homography' (the shake of a hand), 'flow' (that and motion): photos/align.py
    c.pad_to = 128  # images are padded by reflection to multiples of it, pixels (the release's; changes numbers)
    c.memory_limit = 0.0  # GB for one image: fewer windows are computed at once until it fits; 0: what is free
    c.small_images = 'error'  # too small for pad_to: or 'pad_to_window'
    # Columns, by name of afunet_jax/metrics/registry.py; the paper's five.
    c.metrics = ('psnr_l', 'psnr_mu', 'ssim_l', 'ssim_mu', 'hdrvdp2_sctnet')
    c.baselines = True  # also score the middle exposure alone, weighted merges, and OpenCV's
    c.report = True  # write report.html: tables, pictures to compare at any exposure, training curves
    c.report_inline = False  # with all pictures inside the page instead of beside it
    c.pictures = True  # write predictions as .hdr and mu-law PNG
    c.scenes = 0  # at most so many; 0: all
    return c
