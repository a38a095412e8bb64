"""The numeric tables beside this module, and where each comes from."""

import functools
import pathlib

import numpy as np

FOLDER = pathlib.Path(__file__).parent / 'tables'
_SP3 = 'steerable pyramid "sp3" of matlabPyrTools, MIT licence, Laboratory for Computational Vision'
_RECEPTORS = (
    'integrals of emission times receptor sensitivity over the spectra of HDR-VDP-2.2.1 (cones of Smith and '
    'Pokorny 1975, CIE scotopic luminosity); rows colour channels, columns L, M, S, rod; emission of '
)
SOURCES = {
    'M_ccfl-lcd.csv': _RECEPTORS + 'an LCD with CCFL backlight (rows R, G, B)',
    'M_d65.csv': _RECEPTORS + 'the daylight D65 (one row)',
    'sp3_hi0filt_15x15.csv': 'high-pass residual, ' + _SP3,
    'sp3_lo0filt_9x9.csv': 'first low-pass, ' + _SP3,
    'sp3_lofilt_17x17.csv': 'low-pass of every level, taps sum to 2, ' + _SP3,
    **{f'sp3_bfilt{o}_9x9.csv': f'oriented band {o} of 4, ' + _SP3 for o in (1, 2, 3, 4)},
}


@functools.cache
def load_table(name: str) -> np.ndarray:
    """The table `name` of `SOURCES`, two-dimensional, float64, read-only; of a filter the rows are y."""
    table = np.loadtxt(FOLDER / name, delimiter=',', ndmin=2)
    table.flags.writeable = False
    return table
