"""The page's server without a browser: who may ask, limits, the queue, what stays on the disk."""

import contextlib
import http.client
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import small
from web_server import Held, serving

from afunet_jax.photos import align, response
from afunet_jax.web import messages
from afunet_jax.web.jobs import Limits

THREE = {'a.jpg': b'one', 'b.jpg': b'two', 'c.jpg': b'three'}


@pytest.fixture
def held():
    return Held()


@pytest.fixture
def client(held, tmp_path):
    root = tmp_path / 'jobs'
    root.mkdir()
    with serving(held, root, Limits(max_upload=1000, max_photos=4, unfinished=3, results=2)) as client:
        yield client


def folders(client):
    return sorted(path.name for path in client.root.iterdir())


# ---- who may ask ------------------------------------------------------------------------------------


def test_the_page_comes_with_a_policy_and_names_no_other_address(client):
    for path in ('/', '/page.js', '/page.css', '/report.js', '/report.css'):
        status, headers, data = client.ask('GET', path)
        assert status == 200 and not re.search(rb'(https?:)?//\w', data.replace(b'// ', b'')), path
        assert headers['Content-Security-Policy'].startswith("default-src 'none'; script-src 'self'")
        assert headers['X-Content-Type-Options'] == 'nosniff'
        assert not [name for name in headers if name.lower().startswith('access-control')]


def test_the_pages_choices_are_those_of_the_package(client):
    page = client.ask('GET', '/')[2].decode()
    for name, choices in (('curve', response.CHOICES), ('align', align.METHODS)):
        found = re.findall(r'value="([^"]*)"', re.search(f'<select id="{name}">.*?</select>', page, re.S)[0])
        assert sorted(found) == sorted(choices)
        assert found[0] == {'curve': response.AUTO, 'align': align.DEFAULT}[name]  # as in predict.py
    for _, control, _ in messages.CURES:
        assert f'id="{control}"' in page or control == 'exposures'
    assert '{{' not in page


@pytest.mark.parametrize('host', ['evil.example', 'localhost.evil.example', 'evil.example:8000', '127.0.0.1.evil', ''])
def test_another_name_for_this_machine_is_refused(client, host):
    for path in ('/', '/page.js', '/api/jobs/x'):
        status, _, answer = client.ask('GET', path, host=host or ' ')
        assert status in (400, 403) and b'<html' not in str(answer).encode()


@pytest.mark.parametrize('host', ['localhost', '127.0.0.1', 'LOCALHOST:9000'])
def test_this_machines_names_are_answered(client, host):
    assert client.ask('GET', '/', host=host)[0] == 200


def test_other_sites_may_not_ask(client):
    ours = f'http://localhost:{client.port}'
    for headers in ({'Origin': 'http://evil.example'}, {'Origin': 'null'}, {'Origin': ours + '0'},
                    {'Sec-Fetch-Site': 'cross-site'}, {'Sec-Fetch-Site': 'same-site'}):  # fmt: skip
        status, answered, _ = client.ask('POST', '/api/jobs', b'{}', headers)
        assert status == 403 and 'Access-Control-Allow-Origin' not in answered
    assert client.ask('GET', '/api/jobs/x', headers={'Sec-Fetch-Site': 'cross-site'})[0] == 403
    assert client.ask('GET', '/', headers={'Sec-Fetch-Site': 'cross-site'})[0] == 200  # a link to the page
    assert client.ask('POST', '/api/jobs', b'{}', {'Origin': ours, 'Sec-Fetch-Site': 'same-origin'})[0] == 400
    assert client.ask('OPTIONS', '/api/jobs')[0] == 405


# ---- limits and wrong things ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('files', 'changes', 'status', 'words'),
    [
        ({f'{i}.jpg': b'x' for i in range(5)}, {}, 413, '5 photos'),
        ({}, {}, 413, '0 photos'),
        ({**THREE, 'c.jpg': b'x' * 1000}, {}, 413, '--max_upload'),
        ({**THREE, 'c.jpg': b''}, {}, 422, 'c.jpg: the file is empty'),
        ({**THREE, 'c.pdf': b'x'}, {}, 422, 'c.pdf: not a photo by its ending'),
        ({**THREE, 'c': b'x'}, {}, 422, 'not a photo by its ending'),
        (THREE, {'exposures': ['0', '', '2']}, 422, 'no exposure was given for b.jpg'),
        (THREE, {'exposures': ['0', '1', 'bright']}, 422, "'bright' is no exposure"),
        (THREE, {'exposures': ['0', '1/30', '2']}, 422, 'mixed'),
        (THREE, {'exposures': ['0', '1']}, 400, 'load the page anew'),
        (THREE, {'curve': 'steep'}, 422, "not 'steep'"),
        (THREE, {'align': ['off']}, 422, "not ['off']"),
        (THREE, {'max_side': -1}, 422, 'not -1'),
        (THREE, {'more': 1}, 400, 'load the page anew'),
        (THREE, {'photos': [{'name': 'a.jpg'}]}, 400, 'load the page anew'),
        (THREE, {'photos': [{'name': 'a.jpg', 'bytes': float('inf')}]}, 400, 'load the page anew'),
        (THREE, {'photos': [{'name': 'a.jpg', 'bytes': float('nan')}]}, 400, 'load the page anew'),
    ],
)  # fmt: skip
def test_what_breaks_a_limit_or_a_rule_is_refused_before_it_is_sent(client, files, changes, status, words):
    found, _, answer = client.create(files, **changes)
    assert (found, words in answer['error']) == (status, True), answer
    assert folders(client) == []


@pytest.mark.parametrize('body', [b'', b'[]', b'{', b'\xff', b'[' * 50_000, b'{"a": "' + b'x' * 200_000 + b'"}'])
def test_what_is_no_json_of_the_page_is_refused(client, body):
    assert client.ask('POST', '/api/jobs', body)[0] in (400, 413)


def test_more_or_fewer_bytes_than_told_are_refused_and_nothing_of_them_stays(client):
    job = client.create(THREE)[2]['job']
    assert client.ask('PUT', f'/api/jobs/{job}/photos/0', b'four')[0] == 413
    assert client.ask('PUT', f'/api/jobs/{job}/photos/0', b'on')[0] == 400
    assert not list((client.root / job).iterdir())
    client.send(job, {'a.jpg': b'one'})
    assert client.ask('PUT', f'/api/jobs/{job}/photos/0', b'one')[0] == 409
    for index in ('3', '-1', 'x'):
        assert client.ask('PUT', f'/api/jobs/{job}/photos/{index}', b'one')[0] in (404, 409)
    assert client.status(job)['state'] == 'uploading'


def test_nothing_of_a_users_path_becomes_a_file_name(client, held):
    files = {'../../../tmp/x.JPG': b'1', 'C:\\photos\\\u202egnp.exe.tif': b'2', 'n\0ul\n.dng': b'3'}
    job = client.start(files)
    held.begun.acquire()
    assert sorted(path.name for path in (client.root / job).iterdir()) == ['photo-1.jpg', 'photo-2.tif', 'photo-3.dng']
    assert held.orders[0].titles == ('x.JPG', '\ufffdgnp.exe.tif', 'n\ufffdul\ufffd.dng')
    for path in (f'/api/jobs/{job}/files/../../../etc/passwd', '/api/jobs/..%2f..%2fetc/files/hdr', '/..%2fjobs.py',
                 '/jobs.py', f'/api/jobs/{job}/files/photo-1.jpg'):  # fmt: skip
        assert client.ask('GET', path)[0] == 404


def test_a_long_name_keeps_its_ending(client, held):
    names = [f'{letter}{"x" * 245}.jpeg' for letter in 'abc']
    client.start(dict.fromkeys(names, b'1'))
    held.begun.acquire()
    shown = held.orders[0].titles
    assert all(len(title) == 120 and title.startswith(name[:100]) for title, name in zip(shown, names, strict=True))
    assert all(title.endswith('x.jpeg') for title in shown)


def test_a_fault_of_ours_ends_its_job_and_not_the_queue(client, held, monkeypatch):
    def broken(order, say):
        monkeypatch.undo()
        raise KeyError('a bug')
    monkeypatch.setattr(held, 'merge', broken)
    job = client.start(THREE)
    told = client.wait(job)
    assert told['state'] == 'failed' and "an error of this program, not of the photos: KeyError: 'a" in told['error']
    assert held.killed == 1  # the worker may still be at it
    held.killed = 0
    assert client.wait(client.start(THREE))['state'] == 'finished'


def test_messages_have_the_users_names_and_not_our_folders(tmp_path):
    text = f'{tmp_path}/photo-2.tif: the same pixels as {tmp_path}/photo-1.jpg. {tmp_path}: photo-12.png, photo-1: x'
    told = messages.with_names(text, tmp_path, ['photo-2.tif', 'b (2).tif'])
    assert told == 'b (2).tif: the same pixels as photo-2.tif. the photos: photo-12.png, photo-2.tif: x'


# ---- queue and results ------------------------------------------------------------------------------


def test_brackets_are_merged_one_at_a_time_in_turn(client, held):
    jobs = [client.start(THREE) for _ in range(3)]
    held.begun.acquire()
    status, _, answer = client.create(THREE)
    assert status == 503 and '3 brackets' in answer['error']
    told = [client.status(job) for job in jobs]
    assert [t['state'] for t in told] == ['running', 'waiting', 'waiting']
    assert [t.get('ahead') for t in told] == [None, 1, 2]
    assert told[0]['stage'] == 'merging' and 90 < told[0]['left'] <= 100
    for _ in range(3):
        held.go.release()
    assert {client.wait(job)['state'] for job in jobs[1:]} == {'finished'}
    assert held.most_at_once == 1 and [order.folder.name for order in held.orders] == jobs


def test_only_the_newest_results_stay_and_photos_do_not(client, held):
    jobs = []
    for _ in range(3):
        jobs.append(client.start(THREE))
        held.go.release()
        told = client.wait(jobs[-1])
        assert told['result']['report'] == 'a.jpg is fine'
    assert folders(client) == sorted(jobs[1:])
    assert not [path for path in client.root.rglob('photo-*')]
    assert client.get(jobs[2], 'hdr') == b'result'
    status, _, answer = client.ask('GET', f'/api/jobs/{jobs[0]}/files/hdr')
    assert status == 404 and 'merge it again' in answer['error']


def test_downloads_are_attachments_and_what_is_shown_has_its_type(client, held):
    job = client.start(THREE)
    held.go.release()
    client.wait(job)
    kinds = {kind: client.ask('GET', f'/api/jobs/{job}/files/{kind}')[1] for kind in ('hdr', 'exr', 'png', 'hdr_png')}
    assert {headers['Content-Disposition'] for headers in kinds.values()} == {'attachment'}
    assert client.ask('GET', f'/api/jobs/{job}/files/view')[1]['Content-Type'].startswith('text/javascript')


def test_removing_ends_a_merge_and_leaves_the_next_alone(client, held):
    first, second = client.start(THREE), client.start(THREE)
    held.begun.acquire()
    assert client.ask('DELETE', f'/api/jobs/{first}')[0] == 200
    held.begun.acquire()
    assert client.ask('GET', f'/api/jobs/{first}')[0] == 404
    held.go.release()
    assert client.wait(second)['state'] == 'finished'
    assert folders(client) == [second]
    assert client.ask('DELETE', f'/api/jobs/{second}')[0] == 200
    assert folders(client) == []


def test_what_nobody_asks_for_is_forgotten(held, tmp_path):
    with serving(held, tmp_path, Limits(upload_seconds=0.2, keep_seconds=1.2)) as client:
        sending, waiting = client.create(THREE)[2]['job'], client.start(THREE)
        held.go.release()
        client.wait(waiting)
        time.sleep(0.3)
        client.jobs.sweep()
        assert folders(client) == [waiting]
        assert client.ask('PUT', f'/api/jobs/{sending}/photos/0', b'one')[0] == 404
        time.sleep(1.2)
        client.jobs.sweep()
        assert folders(client) == []


def test_the_end_of_the_server_removes_everything(held, tmp_path):
    root = tmp_path / 'jobs'
    root.mkdir()
    with serving(held, root) as client:
        client.create(THREE)
        client.start(THREE)
        assert len(folders(client)) == 2
    assert not root.exists()


# ---- the program ------------------------------------------------------------------------------------


def started(tmp_path, weights):
    """The program, its port, and the folder of its temporary files."""
    folder = tmp_path / 'tmp'
    folder.mkdir()
    process = subprocess.Popen(
        [sys.executable, '-m', 'afunet_jax.web', '--port=0', f'--weights={weights}'], cwd=small.ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, 'TMPDIR': str(folder)},
    )  # fmt: skip
    assert 'parameters' in process.stdout.readline()
    return process, int(re.search(r'localhost:(\d+)', process.stdout.readline())[1]), folder


@pytest.mark.parametrize(
    ('number', 'status'),
    [
        (signal.SIGTERM, 143),
        pytest.param(signal.SIGINT, 0, marks=pytest.mark.slow),
        pytest.param(signal.SIGKILL, -9, marks=pytest.mark.slow),
    ],
)
def test_no_end_of_the_program_leaves_files(weights, tmp_path, number, status):
    process, port, folder = started(tmp_path, weights)
    (root,) = folder.iterdir()
    (root / 'photo').write_bytes(b'x')
    with contextlib.closing(http.client.HTTPConnection('127.0.0.1', port)) as page:
        page.request('GET', '/', headers={'Host': 'localhost'})
        assert page.getresponse().status == 200
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == status and 'Traceback' not in err
    deadline = time.monotonic() + 10
    while list(folder.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.05)  # after SIGKILL the process that merges does it
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ('flag', 'words'),
    [('--weights=no.safetensors', 'no.safetensors'), ('--port=70000', 'port 70000'), ('--max_upload=0', 'max_upload')],
)  # fmt: skip
def test_a_wrong_start_is_a_message(capsys, monkeypatch, tmp_path, flag, words):
    from afunet_jax.web.__main__ import main

    monkeypatch.setenv('TMPDIR', str(tmp_path))
    monkeypatch.setattr('tempfile.tempdir', None)
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)]
    try:
        with pytest.raises(SystemExit) as ended:
            main(['--port=0', flag])
    finally:
        for number, handler in zip((signal.SIGTERM, signal.SIGHUP), handlers):
            signal.signal(number, handler)
    assert ended.value.code == 2 and words in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []




def test_a_port_that_is_taken_is_a_message():
    from afunet_jax.errors import ConfigError
    from afunet_jax.web.__main__ import _listen

    with _listen(0) as taken, pytest.raises(ConfigError, match='choose another, as --port='):
        _listen(taken.getsockname()[1])
