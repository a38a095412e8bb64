"""What the command-line programs share: errors of ours are printed as messages, all others keep their trace."""

import functools
import sys
from collections.abc import Callable
from typing import Any

from absl import logging

from afunet_jax.errors import AFUNetError

EXIT_ERROR = 2


def errors_as_messages(main: Callable[..., Any]) -> Callable[..., Any]:
    """Decorates `main`: an `AFUNetError` becomes `error: message` on stderr and exit status 2."""

    @functools.wraps(main)
    def wrapped(*args: Any) -> Any:
        logging.set_verbosity(logging.ERROR)  # Orbax reports every move of a save
        try:
            return main(*args)
        except AFUNetError as error:
            print(f'error: {error}', file=sys.stderr, flush=True)
            sys.exit(EXIT_ERROR)

    return wrapped
