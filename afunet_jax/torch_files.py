"""The one place where PyTorch's files are read: with `weights_only`, so that no code in them runs.

What goes before it: a version of PyTorch without known holes in `weights_only`, and no archive that unpacks to more
than its length.
"""

import pathlib
import re
import warnings
import zipfile
from typing import Any

from afunet_jax.errors import WeightsError

SAFE_TORCH = (2, 10)  # before it, weights_only could be made to corrupt memory (GHSA-63cw-57p8-fm3p)
SHOWN = 3  # names in a message


def import_torch(path: str | pathlib.Path) -> Any:
    """PyTorch, to read or write `path`.

    Raises:
        WeightsError: it is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            import torch
    except ImportError as error:
        raise WeightsError(
            f'{path}: reading and writing .pth needs PyTorch: pip install -r requirements-dev.txt '
            '(its CPU build will do)'
        ) from error
    return torch


def load(path: str | pathlib.Path) -> Any:
    """What `torch.save` has written: tensors, numbers and texts in lists and dicts, on the CPU.

    Raises:
        WeightsError: no such file, damaged, an archive that unpacks to more than its length, or one that wants code to
            be run; PyTorch is missing, or too old to be safe.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise WeightsError(f'{path}: no such file')
    torch = import_torch(path)
    check_version(path, torch.__version__)
    check_archive(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            return torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:  # torch.load raises what the damaged bytes happen to lead to
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise WeightsError(f'{path}: not a file of PyTorch weights, or damaged ({reason})') from error


def check_version(path: str | pathlib.Path, version: str) -> None:
    """Raises WeightsError if this PyTorch has known holes in `weights_only`."""
    if tuple(int(part) for part in re.findall(r'\d+', version)[:2]) < SAFE_TORCH:
        wanted = '.'.join(map(str, SAFE_TORCH))
        raise WeightsError(
            f'{path}: PyTorch {version} can be made to run what a .pth holds, even with weights_only; '
            f'pip install "torch>={wanted}", or use a .safetensors file'
        )


def check_archive(path: str | pathlib.Path) -> None:
    """Refuses an archive whose checksums are wrong, or that unpacks to more than its length.

    `torch.save` packs nothing: such a file is a bomb, or damaged.

    Raises:
        WeightsError: it is one; other files, of PyTorch's old format too, pass.
    """
    path = pathlib.Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, LookupError, NotImplementedError):
        return  # no archive: PyTorch says what it is
    promised, length = sum(entry.file_size for entry in entries), path.stat().st_size
    packed = [entry.filename for entry in entries if entry.compress_type != zipfile.ZIP_STORED]
    if packed or promised > length:
        raise WeightsError(
            f'{path}: damaged, or a bomb: {length} bytes that unpack to {promised} '
            f'(compressed: {", ".join(packed[:SHOWN]) or "nothing"}); torch.save writes no such files, fetch it again'
        )
    _check_sums(path)


def _check_sums(path: pathlib.Path) -> None:
    """PyTorch itself does not look at the checksums, and reads numbers that were changed."""
    try:
        with zipfile.ZipFile(path) as archive:
            wrong = archive.testzip()
    except (zipfile.BadZipFile, OSError, ValueError, LookupError, NotImplementedError, RuntimeError, EOFError) as error:
        raise WeightsError(f'{path}: not a file of PyTorch weights, or damaged ({error}); fetch it again') from error
    if wrong is not None:
        raise WeightsError(
            f'{path}: damaged: the checksum of {wrong:.100} in it differs; fetch it again. If it was saved without '
            'checksums (torch.serialization.set_crc32_options(False)), save it with them'
        )
