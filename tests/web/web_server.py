"""The page's server in a thread, a client of the standard library, and a merging process that does what a test says."""

import contextlib
import http.client
import json
import pathlib
import socket
import threading
import time

import uvicorn

from afunet_jax.errors import DataError
from afunet_jax.photos import align
from afunet_jax.web import app
from afunet_jax.web.jobs import Jobs, Limits
from afunet_jax.web.worker import FILES

SECONDS = 60
SETTINGS = {'curve': 'auto', 'align': align.DEFAULT, 'max_side': 0, 'estimate': False, 'trust_exposures': False}
ORIGIN = 'http://localhost:{}'


class Held:
    """Instead of `MergingProcess`: a merge lasts until it is let go, or killed."""

    def __init__(self):
        self.orders, self.killed = [], 0
        self.begun, self.go = threading.Semaphore(0), threading.Semaphore(0)
        self._at_once, self.most_at_once = 0, 0

    def merge(self, order, say):
        self.orders.append(order)
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        say('merging', 100.0)
        self.begun.release()
        self.go.acquire()
        self._at_once -= 1
        if self.killed:
            self.killed -= 1
            raise DataError('the process has ended')
        for name in FILES.values():
            (order.folder / name).write_bytes(b'result')
        return {'report': f'{order.photos[0]} is fine', 'warnings': [], 'height': 2, 'width': 3, 'seconds': 0.0,
                'key': 'k', 'names': order.titles}  # fmt: skip

    def kill(self):
        self.killed += 1
        self.go.release()

    def close(self):
        for _ in range(20):
            self.go.release()


class Client:
    """Requests as the page sends them."""

    def __init__(self, port, jobs, root):
        self.port, self.jobs, self.root = port, jobs, root

    def ask(self, method, path, body=None, headers=None, host=None):
        """Status, headers, and the answer: JSON as an object, else bytes."""
        connection = http.client.HTTPConnection('127.0.0.1', self.port, timeout=SECONDS)
        try:
            connection.putrequest(method, path, skip_host=True)
            body = json.dumps(body).encode() if isinstance(body, dict) else body
            sent = {'Host': host or f'localhost:{self.port}', 'Content-Length': len(body or b''), **(headers or {})}
            for name, value in sent.items():
                connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            data = answer.read()
            is_json = answer.headers['Content-Type'] == 'application/json'
            return answer.status, answer.headers, json.loads(data) if is_json else data
        finally:
            connection.close()

    def create(self, files, exposures=None, **changes):
        """A new job's answer. `files`: name to content."""
        asked = {
            'photos': [{'name': name, 'bytes': len(data)} for name, data in files.items()],
            'exposures': exposures or [''] * len(files), **SETTINGS, **changes,
        }  # fmt: skip
        return self.ask('POST', '/api/jobs', asked)

    def send(self, job, files):
        for i, data in enumerate(files.values()):
            assert self.ask('PUT', f'/api/jobs/{job}/photos/{i}', data)[0] == 200

    def start(self, files, **options):
        """A job with all its photos sent."""
        status, _, answer = self.create(files, **options)
        assert status == 201, answer
        self.send(answer['job'], files)
        return answer['job']

    def status(self, job):
        return self.ask('GET', f'/api/jobs/{job}')[2]

    def wait(self, job, states=('finished', 'failed')):
        deadline = time.monotonic() + SECONDS
        while (told := self.status(job))['state'] not in states:
            assert time.monotonic() < deadline, told
            time.sleep(0.02)
        return told

    def get(self, job, kind):
        status, _, data = self.ask('GET', f'/api/jobs/{job}/files/{kind}')
        assert status == 200
        return data


@contextlib.contextmanager
def serving(merging, root, limits=Limits()):
    """A server, and its client."""
    root = pathlib.Path(root)
    jobs = Jobs(merging, root, limits)
    with socket.socket() as listening:
        listening.bind(('127.0.0.1', 0))
        config = uvicorn.Config(app.build(jobs), log_level='error', access_log=False, timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            yield Client(listening.getsockname()[1], jobs, root)
        finally:
            server.should_exit = True
            jobs.close()
            thread.join()
