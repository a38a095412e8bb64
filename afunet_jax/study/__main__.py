"""The command line, see the package."""

import argparse
import pathlib
import re
import shlex
import sys
from collections.abc import Sequence

import jax

from afunet_jax import cli, study
from afunet_jax.signals import signal_name
from afunet_jax.study.entries import PROGRAMS, TABLES, parse_configs, resolve, table_configs
from afunet_jax.study.running import Interrupted, run
from afunet_jax.study.tables import format_table

OK, FAILED = 0, 1  # exit statuses; cli.EXIT_ERROR is the third, and 128 + N after signal N


@cli.errors_as_messages
def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    parser = _parser()
    flags, overrides = parser.parse_known_args(arguments)
    for override in overrides:
        if not re.match(r'--config\.[^=]+=', override):
            parser.error(
                f'unknown argument {override}; settings for all configs are --config.KEY=VALUE in one word'
            )
    jax.config.update(
        'jax_platforms', 'cpu'
    )  # counting parameters must not take the accelerator from the programs
    configs = table_configs(flags.table, flags.programs) if flags.table else parse_configs(flags.configs)
    entries = resolve(configs, overrides, flags.out, flags.programs)
    try:
        rows = run(entries, overrides, flags.out, flags.programs, flags.stop_on_failure)
    except Interrupted as interruption:
        number = interruption.args[0]
        again = shlex.join(['python', '-m', 'afunet_jax.study', *arguments])
        reason = f'interrupted by {signal_name(number)}'
        print(f'{reason}; this goes on from the last checkpoint:\n  {again}', file=sys.stderr)
        return 128 + number
    print(format_table(rows))
    print(f'tables are in {flags.out}', file=sys.stderr)
    return OK if all(row.status == 'finished' for row in rows) else FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='python -m afunet_jax.study', allow_abbrev=False, description=study.__doc__.splitlines()[0],
        epilog='--config.KEY=VALUE changes a setting of all configs.',
    )  # fmt: skip
    choice = parser.add_mutually_exclusive_group(required=True).add_argument
    choice('--configs', metavar='LIST', help='[NAME=]PATH[:ARGUMENT],... in the order of the table')
    choice('--table', metavar='N', help=f'the list of a table of the paper: {", ".join(TABLES)}')
    add = parser.add_argument
    add(
        '--out',
        type=pathlib.Path,
        required=True,
        metavar='DIR',
        help='of the study; a folder in it for each config',
    )
    add('--stop_on_failure', action='store_true', help='leave out what comes after a config that failed')
    add('--programs', type=pathlib.Path, default=PROGRAMS, metavar='DIR', help='of train.py and eval.py')
    return parser


if __name__ == '__main__':
    sys.exit(main())
