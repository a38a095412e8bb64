"""What the command-line programs share: errors of ours and of files are messages, all others keep their trace.

Exit status: 0 done; 2 (`EXIT_ERROR`) a mistake or a fault that the message explains; 128 + N ended by signal N
(130 Ctrl-C, 143 SIGTERM, 138 SIGUSR1 on Linux), after what `afunet_jax.signals` says.
"""

import argparse
import functools
import io
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from absl import app, logging

from afunet_jax import signals
from afunet_jax.errors import AFUNetError

EXIT_ERROR = 2


def run(main: Callable[[Sequence[str]], None]) -> NoReturn:
    """Parses the flags and runs `main(argv)`, as `absl.app.run` does; mistakes end with a message and status 2."""
    app.run(errors_as_messages(main), flags_parser=_parse)


def errors_as_messages(main: Callable[..., Any]) -> Callable[..., Any]:
    """Decorates `main`: an `AFUNetError` becomes `error: message` on stderr and exit status 2.

    So does what the system refuses to do with a file that it names.

    A signal of `signals.SIGNALS` ends `main` with a message and exit status 128 + its number.
    """

    @functools.wraps(main)
    def wrapped(*args: Any) -> Any:
        _show_any_name()
        logging.set_verbosity(logging.FATAL)  # Orbax reports every move, and errors, which we raise, twice
        try:
            with signals.handled():
                return main(*args)
        except AFUNetError as error:
            _exit(f'error: {error}', EXIT_ERROR)
        except OSError as error:
            if error.filename is None or error.strerror is None:
                raise
            cure = 'Check the path, its rights and the space left'
            _exit(f'error: {error.filename}: {error.strerror}. {cure}', EXIT_ERROR)
        except signals.Interrupted as interruption:
            _exit(str(interruption), interruption.status)

    return wrapped


def natural(text: str) -> int:
    """For argparse: a whole number of 0 or more."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f'expected a whole number of 0 or more, not {text!r}')
    return int(text)


def _parse(argv: Sequence[str]) -> Sequence[str]:
    try:
        return app.parse_flags_with_usage(argv)
    except (AttributeError, LookupError, TypeError, ValueError, OSError, SyntaxError, RecursionError, MemoryError,
            ArithmeticError) as error:  # from --config
        reason = error.args[0] if isinstance(error, KeyError) else error
        given = ' '.join(arg for arg in argv if arg.startswith('--config'))
        _exit(f'error: {given}: {reason}. configs/default.py has every key of a config, with its type', EXIT_ERROR)


def _show_any_name() -> None:
    """Names of files need not be UTF-8, nor what the screen can show."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors='backslashreplace')


def _exit(message: str, status: int) -> NoReturn:
    _show_any_name()
    print(message, file=sys.stderr, flush=True)
    sys.exit(status)
