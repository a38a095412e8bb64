"""The server: serves the page, takes photos, tells how far a merge is. It answers the page alone.

A request must name this machine in `Host` (a foreign name that is made to lead here, DNS rebinding, does not), and
must not come from another site's page (`Origin`, `Sec-Fetch-Site`). The page may load nothing but what is here.
"""

import asyncio
import contextlib
import json
import os
import pathlib
import re
from collections.abc import AsyncIterator
from typing import Any, BinaryIO

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from afunet_jax import hdr, html_report
from afunet_jax.errors import AFUNetError
from afunet_jax.html_report import encoding, markup
from afunet_jax.web import messages
from afunet_jax.web.jobs import ENDINGS, MB, Jobs, Refused

HOSTS = ('localhost', '127.0.0.1')
SAFE = ('GET', 'HEAD')
SAME_SITE = (None, 'same-origin', 'none')  # of Sec-Fetch-Site: not said, from the page, typed by the user
LARGEST_JSON = 100_000  # bytes
SWEEP_SECONDS = 5.0
PART = 2**18  # bytes of a file, sent at once
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' blob: data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    'Content-Security-Policy': POLICY, 'X-Content-Type-Options': 'nosniff', 'Referrer-Policy': 'no-referrer',
    'Cross-Origin-Resource-Policy': 'same-origin', 'Cross-Origin-Opener-Policy': 'same-origin',
    'Cache-Control': 'no-store',
}  # fmt: skip
NO_COLOURS = '000000'  # of maps, which there are none of
TYPES = {'.js': 'text/javascript', '.css': 'text/css', '.jpg': 'image/jpeg'}

_HERE = pathlib.Path(__file__).parent
_VIEWER = pathlib.Path(html_report.__file__).parent


class _FileBeingSent(StreamingResponse):
    """The content of an open file, which is closed whatever becomes of the answer."""

    def __init__(self, file: BinaryIO, **options: Any):
        super().__init__(iter(lambda: file.read(PART), b''), **options)
        self._file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._file.close()


def build(jobs: Jobs) -> Starlette:
    """The application, for `uvicorn`. `jobs` is closed by who made it."""
    files = {'page.js': _HERE, 'page.css': _HERE, 'report.js': _VIEWER, 'report.css': _VIEWER}
    static = {name: (folder / name).read_bytes() for name, folder in files.items()}
    text = page(jobs)

    async def static_file(request: Request) -> Response:
        name = request.path_params['name']
        if name not in static:
            raise Refused(404, 'there is no such file')
        return Response(static[name], media_type=TYPES[pathlib.PurePath(name).suffix])

    async def index(request: Request) -> Response:
        return Response(text, media_type='text/html')

    routes = [Route('/', index), Route('/{name}', static_file), *_api(jobs)]
    handlers = {Refused: _refused, AFUNetError: _refused, 404: _missing, 405: _missing}
    return Starlette(routes=routes, middleware=[Middleware(Guard)], exception_handlers=handlers,
                     lifespan=lambda app: _sweeping(jobs))  # fmt: skip


def page(jobs: Jobs) -> str:
    """The page, with the viewer of `html_report` and the limits in it."""
    template = (_VIEWER / 'template.html').read_text(encoding='utf-8')
    viewer = re.search(r'<template id="viewer">.*?</template>', template, re.S)[0]
    data = {
        'cell': encoding.CELL, 'power': encoding.BASE_POWER, 'gainCodes': encoding.GAIN_CODES, 'gamma': hdr.GAMMA,
        'mu': hdr.MU, 'colours': NO_COLOURS, 'scales': {},
    }  # fmt: skip
    limits = {'bytes': jobs.limits.max_upload, 'photos': jobs.limits.max_photos}
    fields = {'viewer': viewer, 'report': markup.script_json(data), 'limits': markup.script_json(limits),
              'endings': ','.join(sorted(ENDINGS)), 'megabytes': f'{jobs.limits.max_upload / MB:g}',
              'photos': str(jobs.limits.max_photos)}  # fmt: skip
    text = (_HERE / 'page.html').read_text(encoding='utf-8')
    return re.sub(r'{{(\w+)}}', lambda field: fields[field[1]], text)


def _api(jobs: Jobs) -> list[Route]:
    async def create(request: Request) -> Response:
        return JSONResponse({'job': jobs.create(await _json(request))}, 201)

    async def receive(request: Request) -> Response:
        try:
            with jobs.receiving(request.path_params['job'], request.path_params['index']) as write:
                async for chunk in request.stream():
                    write(chunk)
        except ClientDisconnect:
            pass  # nobody hears an answer; the photo may be sent again
        return JSONResponse({})

    async def status(request: Request) -> Response:
        return JSONResponse(jobs.status(request.path_params['job']))

    async def remove(request: Request) -> Response:
        await asyncio.to_thread(jobs.remove, request.path_params['job'])
        return JSONResponse({})

    async def download(request: Request) -> Response:
        path = jobs.file(request.path_params['job'], request.path_params['kind'])
        headers = {} if path.suffix in TYPES else {'Content-Disposition': 'attachment'}
        try:
            file = await asyncio.to_thread(open, path, 'rb')  # now: a file that is removed meanwhile is sent whole
        except FileNotFoundError as error:
            raise Refused(404, 'this result was removed') from error
        headers['Content-Length'] = str(os.fstat(file.fileno()).st_size)
        return _FileBeingSent(file, headers=headers, media_type=TYPES.get(path.suffix, 'application/octet-stream'))

    return [
        Route('/api/jobs', create, methods=['POST']),
        Route('/api/jobs/{job}', status, methods=['GET']),
        Route('/api/jobs/{job}', remove, methods=['DELETE']),
        Route('/api/jobs/{job}/photos/{index:int}', receive, methods=['PUT']),
        Route('/api/jobs/{job}/files/{kind}', download, methods=['GET']),
    ]


async def _json(request: Request) -> dict[str, Any]:
    data = b''
    async for chunk in request.stream():
        data += chunk
        if len(data) > LARGEST_JSON:
            raise Refused(413, 'this is more than the page sends; load the page anew')
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Refused(400, 'this is not what the page sends; load the page anew') from error
    if not isinstance(found, dict):
        raise Refused(400, 'this is not what the page sends; load the page anew')
    return found


def _refused(request: Request, error: AFUNetError) -> Response:
    return _told(getattr(error, 'status', 422), str(error))


def _missing(request: Request, error: Exception) -> Response:
    return _told(error.status_code, 'there is nothing at this address; the page is at /')


def _told(status: int, text: str) -> Response:
    return JSONResponse({'error': text, 'cures': messages.cures(text)}, status)


@contextlib.asynccontextmanager
async def _sweeping(jobs: Jobs) -> AsyncIterator[None]:
    async def sweep() -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            await asyncio.to_thread(jobs.sweep)

    task = asyncio.create_task(sweep())
    try:
        yield
    finally:
        task.cancel()


class Guard:
    """Refuses requests that are not the page's, and adds `HEADERS` to every answer."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope['type'] != 'http':
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message['type'] == 'http.response.start':
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        refused = _refusal(Headers(scope=scope), scope['method'], scope['path'])
        answer = _told(403, refused) if refused else self._app
        await answer(scope, receive, send_guarded)


def _refusal(headers: Headers, method: str, path: str) -> str:
    """Why a request is not the page's; empty if it is."""
    host = headers.get('host', '')
    if re.sub(r':\d+$', '', host).lower() not in HOSTS:
        return f'this server answers requests to {" and ".join(HOSTS)} only, not to {host[:100]!r}'
    origin = headers.get('origin')
    if method not in SAFE and origin is not None and origin.lower() != f'http://{host.lower()}':
        return 'this request comes from another site; only the page of this server may send it'
    if path != '/' and headers.get('sec-fetch-site') not in SAME_SITE:
        return 'this request comes from another site; open the page itself'
    return ''
