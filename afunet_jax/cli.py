"""What the command-line programs share: errors of ours are printed as messages, all others keep their trace."""

import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from absl import app, logging

from afunet_jax.errors import AFUNetError

EXIT_ERROR = 2


def run(main: Callable[[Sequence[str]], None]) -> NoReturn:
    """Parses the flags and runs `main(argv)`, as `absl.app.run` does; mistakes end with a message and status 2."""
    app.run(errors_as_messages(main), flags_parser=_parse)


def errors_as_messages(main: Callable[..., Any]) -> Callable[..., Any]:
    """Decorates `main`: an `AFUNetError` becomes `error: message` on stderr and exit status 2."""

    @functools.wraps(main)
    def wrapped(*args: Any) -> Any:
        logging.set_verbosity(logging.ERROR)  # Orbax reports every move of a save
        try:
            return main(*args)
        except AFUNetError as error:
            _exit(str(error))

    return wrapped


def _parse(argv: Sequence[str]) -> Sequence[str]:
    try:
        return app.parse_flags_with_usage(argv)
    except (AttributeError, KeyError, TypeError, ValueError, OSError) as error:  # from --config
        reason = error.args[0] if isinstance(error, KeyError) else error
        given = ' '.join(arg for arg in argv if arg.startswith('--config'))
        _exit(f'{given}: {reason}. configs/default.py has every key of a config, with its type')


def _exit(message: str) -> NoReturn:
    print(f'error: {message}', file=sys.stderr, flush=True)
    sys.exit(EXIT_ERROR)
