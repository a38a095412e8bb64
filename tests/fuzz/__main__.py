"""Reads damaged files of every format: `python tests/fuzz [--files=2000] [--seed=0] [--start=0] [--formats=PNG,TIFF]`.

Prints a table, and every fault with its seed and case; `--formats=PNG --seed=S --start=CASE --files=1` repeats one.
`--keep=FILE` writes the damaged file of the first case instead.
"""

import argparse
import pathlib
import sys

sys.path[:0] = [str(pathlib.Path(__file__).parents[2]), str(pathlib.Path(__file__).parents[1])]

from fuzz import driver  # noqa: E402


def keep(name: str, seed: int, case: int, path: pathlib.Path) -> None:
    import tempfile

    from fuzz import formats

    with tempfile.TemporaryDirectory() as folder:
        formats.find(name).build(pathlib.Path(folder))
        mutant = formats.mutant(name, seed, case, pathlib.Path(folder))
    path.write_bytes(mutant.data)
    print(f'{path}: {len(mutant.data)} bytes, {mutant.seed} {mutant.kind}')


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--files', type=int, default=2000)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--start', type=int, default=0)
    parser.add_argument('--formats', default=','.join(driver.FORMATS))
    parser.add_argument('--keep', type=pathlib.Path)
    flags = parser.parse_args()
    names = flags.formats.split(',')
    if flags.keep:
        keep(names[0], flags.seed, flags.start, flags.keep)
        return 0
    server = driver.Server()
    found = []
    for name in names:
        found.append(server.run(name, flags.seed, flags.start, flags.start + flags.files))
        print(*found[-1].faults, sep='\n', end='\n' if found[-1].faults else '', flush=True)
    server.close()
    print(driver.table(found))
    return int(any(summary.faults for summary in found))


if __name__ == '__main__':
    sys.exit(main())
