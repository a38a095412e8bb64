"""What the folders of each benchmark look like: a table, no code per data set.

A layout says where a split's scenes are and what their files are called. `{scene}` stands for the
scene's name. The names of files are shell patterns (`*`, `?`) that do not tell upper from lower case
and do not see hidden files. A new data set is a new row of the table.
"""

import dataclasses

from afunet_jax.errors import ConfigError

SPLITS = ('train', 'test')


@dataclasses.dataclass(frozen=True)
class Layout:
    """The folders and files of one data set.

    Attributes:
        name: what `--layout` and the configs call it.
        source: the paper, or where the files come from.
        train: where training scenes are: alternatives, the first that exists is used; an alternative is
            the union of its folders, all of which must exist. Relative to the data set's folder.
            Empty: the data set has no such split.
        test: the same for test scenes.
        scene: the folders of one scene inside those: `{scene}`, or one per exposure.
        ldrs: patterns of the three exposures; what they find is sorted by name, short to long.
        exposures: pattern of the file of exposures, one EV stop per line in the order of the sorted names.
        label: pattern of the ground truth, or None where there is none.
        expected: number of scenes of the complete data set per split; None: not known.
    """

    name: str
    source: str
    train: tuple[tuple[str, ...], ...]
    test: tuple[tuple[str, ...], ...]
    scene: tuple[str, ...]
    ldrs: tuple[str, ...]
    exposures: str
    label: str | None
    expected: dict[str, int | None]

    def folders(self, split: str) -> tuple[tuple[str, ...], ...]:
        """The alternatives of a split, 'train' or 'test'.

        Raises:
            ConfigError: another name of a split.
        """
        if split not in SPLITS:
            raise ConfigError(f'A split is one of {", ".join(SPLITS)}, not {split!r}.')
        return self.train if split == 'train' else self.test


_TABLE = (
    # Test/Test-set is how AFUNet's release has it, Test/EXTRA and Test/PAPER the original download, and Test
    # alone how HDR-Transformer's and SCTNet's readers want it. Ten of the 15 are in EXTRA and the five of the
    # paper's figures, named BarbequeDay and so on, in PAPER; that was not verified on the download itself.
    Layout(
        name='kalantari',
        source='Kalantari and Ramamoorthi, Deep High Dynamic Range Imaging of Dynamic Scenes, SIGGRAPH 2017',
        train=(('Training',),),
        test=(('Test/Test-set',), ('Test/EXTRA', 'Test/PAPER'), ('Test',)),
        scene=('{scene}',),
        ldrs=('{scene}/*.tif',),
        exposures='{scene}/exposure.txt',
        label='{scene}/HDRImg.hdr',
        expected={'train': 74, 'test': 15},
    ),
    # scene_0001_1 to scene_0052_3, as AFUNet's README lists them; not verified on the download itself.
    Layout(
        name='tel',
        source='Tel et al., Alignment-free HDR Deghosting with Semantics Consistent Transformer, ICCV 2023',
        train=(('Training',),),
        test=(('Test',),),
        scene=('{scene}',),
        ldrs=('{scene}/input_?.tif',),
        exposures='{scene}/exposure.txt',
        label='{scene}/HDRImg.hdr',
        expected={'train': 108, 'test': 36},
    ),
    # Scenes 001 to 085 and 086 to 100, as AFUNet's README splits the set; that the download itself has this
    # split, and 16 bits a value, was not verified (another reader divides its values by 255).
    Layout(
        name='hu',
        source='Hu et al., Sensor-realistic Synthetic Data Engine for Multi-frame HDR, CVPRW 2020',
        train=(('Training',),),
        test=(('Test',),),
        scene=('{scene}',),
        ldrs=('{scene}/input_?_aligned.tif',),
        exposures='{scene}/input_exp.txt',
        label='{scene}/ref_hdr_aligned_linear.hdr',
        expected={'train': 85, 'test': 15},
    ),
    # 16 scenes. The brackets are longer than three (one reader takes 3.tiff, 4.tiff, 7.tiff); the download's
    # own names and exposure files were not verified. Lay three exposures out as Kalantari's, without a label.
    Layout(
        name='tursun',
        source='Tursun et al., An Objective Deghosting Quality Metric for HDR Images, Eurographics 2016',
        train=(),
        test=(('Test',), ('.',)),
        scene=('{scene}',),
        ldrs=('{scene}/*.tif', '{scene}/*.tiff'),
        exposures='{scene}/exposure.txt',
        label=None,
        expected={'train': None, 'test': 16},
    ),
    # A moving scene 001 has the folders 001_1, 001_2, 001_3, each with all three exposures and the label of
    # its moment. SAFNet's experiments take exposure K from folder K, and the label of the middle one.
    Layout(
        name='challenge123',
        source='Kong et al., SAFNet: Selective Alignment Fusion Network for Efficient HDR Imaging, ECCV 2024',
        train=(('Training',),),
        test=(('Test',),),
        scene=('{scene}_1', '{scene}_2', '{scene}_3'),
        ldrs=('{scene}_1/ldr_img_1.tif', '{scene}_2/ldr_img_2.tif', '{scene}_3/ldr_img_3.tif'),
        exposures='{scene}_2/exposure.txt',
        label='{scene}_2/hdr_img.hdr',
        expected={'train': 96, 'test': 27},
    ),
)

LAYOUTS: dict[str, Layout] = {layout.name: layout for layout in _TABLE}
LAYOUTS['synthetic'] = dataclasses.replace(
    LAYOUTS['kalantari'],
    name='synthetic',
    source='the built-in scenes of afunet_jax.data.synthetic, or any number of your own',
    expected={'train': None, 'test': None},
)


def get_layout(name: str) -> Layout:
    """The layout of that name.

    Raises:
        ConfigError: there is none; the message lists those there are.
    """
    if name not in LAYOUTS:
        raise ConfigError(f'No data set layout is called {name!r}. Known: {", ".join(LAYOUTS)}.')
    return LAYOUTS[name]
