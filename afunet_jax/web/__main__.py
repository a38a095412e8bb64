"""A page on this machine that merges photos: python -m afunet_jax.web [--port=8000] [--weights=FILE]"""

import argparse
import pathlib
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Sequence
from typing import NoReturn

from afunet_jax import cli, photos
from afunet_jax.errors import ConfigError
from afunet_jax.web.jobs import MB, Jobs, Limits
from afunet_jax.web.process import MergingProcess

ADDRESS = '127.0.0.1'  # no other machine reaches it
PORT = 8000
CONNECTIONS = 64  # at once
ENDING_SIGNALS = 'SIGTERM', 'SIGHUP'  # beside Ctrl-C
GRACE_SECONDS = 2  # for answers under way when the server ends


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog='python -m afunet_jax.web', description=__doc__.partition(':')[0],
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)  # fmt: skip
    add = parser.add_argument
    add('--port', type=int, default=PORT, help='of this machine; 0: any that is free')
    add('--weights', default='', help='a .safetensors, a .pth, a checkpoint or a workdir; none: those of the package')
    add('--max_upload', type=float, default=Limits.max_upload / MB, metavar='MB', help='all photos of a bracket')
    add('--max_pixels', type=float, default=photos.MAX_PIXELS, help='larger photos are refused')
    add('--memory_limit', type=float, default=0.0, metavar='GB', help='for one image; 0: what is free')
    add('--keep_minutes', type=float, default=Limits.keep_seconds / 60, help='of a result after its page was closed')
    return parser


def _limits(flags: argparse.Namespace) -> Limits:
    for name in ('max_upload', 'max_pixels', 'keep_minutes'):
        if not 0 < getattr(flags, name) < float('inf'):
            raise ConfigError(f'--{name} is a positive number, not {getattr(flags, name)}')
    return Limits(int(flags.max_upload * MB), int(flags.max_pixels), keep_seconds=60 * flags.keep_minutes)


def _listen(port: int) -> socket.socket:
    found = socket.socket()
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((ADDRESS, port))
        found.listen()
    except (OSError, OverflowError) as error:
        found.close()
        raise ConfigError(f'port {port} cannot be used ({error}); choose another, as --port={PORT + 1}, or 0 for any '
                          'that is free') from error
    return found


def _end(number: int, frame: object) -> NoReturn:
    sys.exit(128 + number)


@cli.errors_as_messages
def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: serves until Ctrl-C or SIGTERM; returns the exit status."""
    flags = _parser().parse_args(arguments)
    limits = _limits(flags)
    try:
        import uvicorn

        from afunet_jax.web import app
    except ImportError as error:
        raise ConfigError(f'the page needs packages that are not installed ({error}); run pip install starlette '
                          'uvicorn') from error
    for name in ENDING_SIGNALS:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), _end)
    with _listen(flags.port) as listening:
        root = pathlib.Path(tempfile.mkdtemp(prefix='afunet-web-'))
        merging = MergingProcess(flags.weights, flags.memory_limit, root)
        try:
            print(merging.start())
            jobs = Jobs(merging, root, limits)
            try:
                print(f'http://localhost:{listening.getsockname()[1]}  (Ctrl-C ends it)', flush=True)
                config = uvicorn.Config(
                    app.build(jobs), log_level='warning', access_log=False, server_header=False,
                    limit_concurrency=CONNECTIONS, timeout_graceful_shutdown=GRACE_SECONDS,
                )  # fmt: skip
                uvicorn.Server(config).run([listening])
            except KeyboardInterrupt:
                pass
            finally:
                jobs.close()
        finally:
            merging.close()
            shutil.rmtree(root, ignore_errors=True)
    return 0


if __name__ == '__main__':
    sys.exit(main())
