"""The study of a list of configs: with programs that only pretend, and once with the real ones."""

import csv
import fcntl
import functools
import io
import json
import signal
import time

import pytest
import small

from afunet_jax.errors import CheckpointError, ConfigError
from afunet_jax.models import afunet
from afunet_jax.signals import SIGNALS
from afunet_jax.study import __main__ as command
from afunet_jax.study import entries, progress, running

STEPS = 4
SHAPES = functools.cache(afunet.parameter_shapes)  # every test counts the same few networks
CONFIG = f"""
from configs import tiny
def get_config(name='a'):
    config = tiny.get_config()
    config.seed = ord(name)
    config.model.num_stages = {{'a': 1, 'b': 2, 'c': 3}}[name]
    config.train.steps = {STEPS}
    if name == 'c':
        config.eval.pad_to = 64
    return config
"""
START = """
import json, os, pathlib, signal, sys, time
flags = dict(argument[2:].split('=', 1) for argument in sys.argv[1:])
program = pathlib.Path(__file__).stem
work = pathlib.Path(flags['workdir' if program == 'train' else 'weights'])
with open(work.parent / 'calls', 'a') as calls:
    calls.write(f'{program} {work.name}\\n')
wanted = os.environ.get('FAKE', '').split(':')  # program, name, what happens
happens = wanted[2] if wanted[:2] == [program, work.name] else ''
print(f'this is {program} of {work.name}', flush=True)
if happens == 'fail':
    sys.exit('an example of a failure')
if happens == 'killed':
    os.kill(os.getpid(), signal.SIGKILL)
def got(number, frame):
    with open(work / 'signals', 'a') as file:
        file.write(f'{number}\\n')
    if happens != 'stubborn':
        sys.exit(9)
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, got)
def wait_for_signals():
    if happens.isdigit():
        os.kill(os.getppid(), int(happens))
    if happens == 'stubborn':
        os.kill(os.getppid(), signal.SIGTERM)
        while not (work / 'signals').exists():
            time.sleep(0.01)
        os.kill(os.getppid(), signal.SIGTERM)
    if happens.isdigit() or happens in ('stubborn', 'waits'):
        (work / 'waiting').write_text('')
        while not (work / 'go').exists():
            time.sleep(0.01)
"""
TRAIN = f"""
log = work / 'metrics.jsonl'
first = len(log.read_text().splitlines()) if log.exists() else 0
print(f'from step {{first}}', flush=True)
for step in range(first + 1, {STEPS} + 1):
    with open(log, 'a') as file:
        file.write(json.dumps({{'step': step}}) + '\\n')
    if step == 2:
        wait_for_signals()
"""
EVAL = """
wait_for_signals()
out = pathlib.Path(flags['out'])
out.mkdir(exist_ok=True)
figure = {'a': 40.0, 'b': 41.5, 'c': 43.0}[work.name]
network = {'ssim_mu': 0.9, 'hdrvdp2_sctnet': figure + 20, 'psnr_mu': figure, 'seconds': 2.0}
network |= {'other': None, 'psnr_l': 'inf'}
means = {'AFUNet': network, 'middle exposure': {'psnr_mu': 1.0, 'seconds': 0.1}}
(out / 'results.json').write_text(json.dumps({'means': means}))
"""


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A folder with pretended programs and a config; the study's commands work as if it were the project."""
    (tmp_path / 'train.py').write_text(START + TRAIN)
    (tmp_path / 'eval.py').write_text(START + EVAL)
    (tmp_path / 'config.py').write_text(CONFIG)
    monkeypatch.setenv('PYTHONPATH', str(small.ROOT))
    monkeypatch.setattr(afunet, 'parameter_shapes', SHAPES)
    return tmp_path


@pytest.fixture
def start(root, monkeypatch):
    """Runs a study of `names`; `fake` is what happens in a pretended program. Returns the exit status."""

    def start(*arguments, names='ab', fake=''):
        monkeypatch.setenv('FAKE', fake)
        return command.main(arguments_of(root, *arguments, names=names))

    return start


def arguments_of(root, *arguments, names='ab'):
    configs = ','.join(f'{root}/config.py:{name}' for name in names)
    return [f'--configs={configs}', f'--out={root}/out', f'--programs={root}', *arguments]


def calls(root):
    """What ran since the last call."""
    path = root / 'out' / 'calls'
    found = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return found


def entries_of(root, *names, overrides=()):
    configs = [(name, f'{root}/config.py:{name}') for name in names]
    return entries.resolve(configs, overrides, root / 'out', root)


def claim(root, name):
    """Writes the configuration as train.py does when it begins."""
    (entry,) = entries_of(root, name)
    (entry.folder / 'config.json').write_text(json.dumps(entry.settings))


def table(root):
    return json.loads((root / 'out' / 'study.json').read_text())['rows']


def error(capsys, run, *arguments, **options):
    with pytest.raises(SystemExit) as stopped:
        run(*arguments, **options)
    assert stopped.value.code == 2
    return capsys.readouterr().err


def test_all_are_trained_and_evaluated_in_turn_and_stand_in_the_table(start, root, capsys):
    assert start() == command.OK
    assert calls(root) == ['train a', 'eval a', 'train b', 'eval b']
    out, err = capsys.readouterr()
    assert 'b (2 of 2): finished after' in err and 'no training left' in err
    assert out == (root / 'out' / 'study.txt').read_text()
    lines = out.splitlines()
    assert (
        lines[0].split()
        == (
            'config parameters training PSNR-l +/- PSNR-mu +/- SSIM-mu +/- HDR-VDP-2 (sctnet) +/- other +/- '
            'seconds/scene +/-'
        ).split()
    )
    assert lines[2].split()[3:] == ['inf', '40.000', '0.90000', '60.00', '-', '2.00']
    assert lines[3].split()[3:] == [
        'inf', '-', '41.500', '+1.500', '0.90000', '+0.00000', '61.50', '+1.50', '-', '-', '2.00', '+0.00',
    ]  # fmt: skip
    assert lines[4] == '+/-: less a'


def test_the_files_hold_what_the_table_holds(start, root):
    start()
    rows = table(root)
    assert [(row['name'], row['status'], row['starts']) for row in rows] == [
        ('a', 'finished', 1),
        ('b', 'finished', 1),
    ]
    assert rows[1]['differences']['psnr_mu'] == 1.5 and rows[1]['differences']['psnr_l'] is None
    assert rows[0]['parameters'] == entries_of(root, 'a')[0].parameters == 5_331 < rows[1]['parameters']
    assert 0 < rows[0]['train_seconds'] < 60
    read = list(csv.DictReader(io.StringIO((root / 'out' / 'study.csv').read_text())))
    assert [row['name'] for row in read] == ['a', 'b']
    assert float(read[1]['psnr_mu']) == 41.5 and float(read[1]['psnr_mu_difference']) == 1.5
    assert read[1]['other'] == '' and float(read[1]['psnr_l']) == float('inf')


def test_finished_ones_are_skipped(start, root, capsys):
    start()
    before, rows = calls(root), table(root)
    assert start() == command.OK
    assert before and calls(root) == [] and table(root) == rows
    assert 'a (1 of 2): finished, skipped' in capsys.readouterr().err
    assert start(names='cab') == command.OK
    assert calls(root) == ['train c', 'eval c']
    assert [row['name'] for row in table(root)] == ['c', 'a', 'b']


def test_programs_get_config_folders_and_overrides(start, root):
    start('--config.train.batch_size=2', '--config.data.dir=x y', names='a')
    common = f"{root}/config.py:a --config.train.batch_size=2 '--config.data.dir=x y'"
    for log, flags in (('train.log', '--workdir={}'), ('eval.log', '--weights={0} --out={0}/eval')):
        line = (root / 'out' / 'a' / log).read_text().splitlines()[0]
        assert line.endswith(f'{common} {flags.format(root / "out" / "a")}')


def test_other_settings_of_the_evaluation_evaluate_again(start, root):
    start()
    calls(root)
    start('--config.eval.scenes=1')
    assert calls(root) == ['eval a', 'eval b']
    start('--config.eval.scenes=1', '--config.train.threads=0', '--config.data.prepared_dir=elsewhere')
    assert calls(root) == []


def test_changed_or_missing_results_are_made_again(start, root):
    start()
    calls(root)
    path = root / 'out' / 'a' / 'eval' / 'results.json'
    path.write_text(path.read_text().replace('40.0', '50.0'))
    (root / 'out' / 'b' / 'eval' / 'results.json').unlink()
    start()
    assert calls(root) == ['eval a', 'eval b']
    assert table(root)[0]['means']['psnr_mu'] == 40.0


def test_other_settings_of_the_training_are_refused_before_anything_runs(start, root, capsys):
    start()
    claim(root, 'b')
    before = {path: path.read_bytes() for path in (root / 'out').rglob('*') if path.is_file()}
    err = error(capsys, start, '--config.optimizer.learning_rate=1.0')
    assert 'optimizer.learning_rate: 0.002 there, 1.0 now' in err and 'a new --out' in err
    assert {path: path.read_bytes() for path in (root / 'out').rglob('*') if path.is_file()} == before


@pytest.mark.parametrize(('fake', 'expected'), [
    ('train:a:fail', 'train.py ended with status 1'),
    ('train:a:killed', 'train.py was killed by SIGKILL (memory may have run out)'),
    ('eval:a:fail', 'eval.py ended with status 1'),
])  # fmt: skip
def test_a_failure_is_reported_and_the_others_go_on(start, root, capsys, fake, expected):
    assert start(fake=fake) == command.FAILED
    assert calls(root)[-2:] == ['train b', 'eval b']
    out, err = capsys.readouterr()
    assert f'a: {expected}' in out and f'a: {expected}' in err
    assert f'this is {fake[: fake.index(":")]} of a' in err  # the end of its log
    assert [row['status'] for row in table(root)] == [expected, 'finished']
    assert table(root)[1]['differences']['psnr_mu'] is None  # the first row has no figure
    assert start() == command.OK
    assert calls(root) == (['train a'] if fake.startswith('train') else []) + ['eval a']
    assert table(root)[1]['differences']['psnr_mu'] == 1.5


def test_a_failure_stops_the_others_if_asked(start, root):
    assert start('--stop_on_failure', fake='train:a:fail') == command.FAILED
    assert calls(root) == ['train a']
    assert [row['status'] for row in table(root)] == ['train.py ended with status 1', 'not finished']


def test_an_evaluation_that_writes_nothing_is_a_failure(start, root):
    (root / 'eval.py').write_text('')
    assert start(names='a') == command.FAILED
    assert 'has written no' in table(root)[0]['status']


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize('program', ['train', 'eval'])
def test_a_signal_is_passed_on_and_the_same_command_goes_on(start, root, capsys, number, program):
    handlers = [signal.getsignal(n) for n in SIGNALS]
    assert start(fake=f'{program}:a:{number:d}') == 128 + number
    assert [signal.getsignal(n) for n in SIGNALS] == handlers
    assert (root / 'out' / 'a' / 'signals').read_text() == f'{number:d}\n'
    assert calls(root) == (['train a'] if program == 'train' else ['train a', 'eval a'])
    err = capsys.readouterr().err
    assert f'interrupted by {number.name}' in err
    assert f'python -m afunet_jax.study {" ".join(arguments_of(root))}' in err
    assert start() == command.OK
    assert calls(root) == (['train a'] if program == 'train' else []) + ['eval a', 'train b', 'eval b']
    log = (root / 'out' / 'a' / 'train.log').read_text()
    assert ('from step 2' in log) == (program == 'train')
    assert table(root)[0]['starts'] == (2 if program == 'train' else 1)
    assert any('2 starts' in note for note in table(root)[0]['notes']) == (program == 'train')


def test_a_second_signal_kills(start, root):
    assert start(fake='train:a:stubborn') == 128 + signal.SIGTERM
    assert (root / 'out' / 'a' / 'signals').read_text() == f'{signal.SIGTERM:d}\n'
    assert start() == command.OK


def test_a_program_that_outlives_its_study_holds_the_folder(root, start, capsys, monkeypatch):
    monkeypatch.setenv('FAKE', 'train:a:waits')
    first = small.start('-m afunet_jax.study', *arguments_of(root, names='a'))
    waiting = root / 'out' / 'a' / 'waiting'
    deadline = time.monotonic() + 120
    while not waiting.exists() and time.monotonic() < deadline and first.poll() is None:
        time.sleep(0.05)
    first.kill()
    first.communicate()
    assert waiting.exists()
    assert 'another study works here' in error(capsys, start, names='a')
    (root / 'out' / 'a' / 'go').write_text('')
    with open(root / 'out' / running.LOCK) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # until the program has ended
    assert start(names='a') == command.OK
    assert 'from step 4' in (root / 'out' / 'a' / 'train.log').read_text()


def test_rows_that_were_measured_in_another_way_are_not_compared(start, root):
    start(names='ac')
    row = table(root)[1]
    assert row['means']['psnr_mu'] == 43.0 and set(row['differences'].values()) == {None}
    assert row['notes'] == [
        'measured in another way than a, so not compared: eval.pad_to: 128 there, 64 here'
    ]


@pytest.mark.parametrize(('text', 'expected'), [
    ('{0}', [('config', '{0}')]),
    ('{0}:a', [('a', '{0}:a')]),
    ('{0}:a, wide={0}:b,', [('a', '{0}:a'), ('wide', '{0}:b')]),
    ('x={0}', [('x', '{0}')]),
    ('{0}:a,x-1={0}:k=v/w', [('a', '{0}:a'), ('x-1', '{0}:k=v/w')]),
])  # fmt: skip
def test_lists_of_configs(root, text, expected):
    path = str(root / 'config.py')
    assert entries.parse_configs(text.format(path)) == [
        (name, config.format(path)) for name, config in expected
    ]


@pytest.mark.parametrize(('text', 'message'), [
    ('', 'names no config'),
    ('{0}/none.py:a', 'none.py: no such config file'),
    ('{0}', 'no such config file'),
    ('{0}/config.py:a,{0}/config.py:b,x={0}/config.py,a={0}/config.py:c', "are all called 'a'; name them"),
    ('{0}/config.py:../a', "'../a' is no name for a folder"),
    ('={0}/config.py', "'' is no name for a folder"),
    ('study.txt={0}/config.py', 'is no name for a folder'),
])  # fmt: skip
def test_lists_that_cannot_be(root, text, message):
    with pytest.raises(ConfigError, match=message):
        entries.parse_configs(text.format(root))


def test_tables_of_the_paper_are_lists_of_our_variants():
    from configs import variants

    lists = {table: entries.table_configs(table) for table in entries.TABLES}
    assert {config.partition(':')[0] for rows in lists.values() for _, config in rows} == {
        str(small.ROOT / 'configs' / 'variants.py')
    }
    models = {
        table: [variants.get_config(config.partition(':')[2]).model for _, config in rows]
        for table, rows in lists.items()
    }
    assert [model.ablation for model in models['4']] == ['M1', 'M2', 'M3', 'M4']
    assert [model.order for model in models['5']] == ['AF', 'FA'] == [name for name, _ in lists['5']]
    assert [model.num_stages for model in models['6']] == [2, 3, 4, 5, 6]


def test_tables_are_found_in_any_folder(tmp_path):
    configs = tmp_path / 'a, b' / 'configs'
    configs.mkdir(parents=True)
    (configs / 'variants.py').touch()
    assert entries.table_configs('5', configs.parent)[1] == ('FA', f'{configs}/variants.py:FA')
    with pytest.raises(ConfigError, match='variants.py: no such config file; --programs is the folder'):
        entries.table_configs('5', tmp_path)


def test_an_unknown_table_names_the_known_ones():
    with pytest.raises(ConfigError, match="4, 5, 6, not '7'.*--configs"):
        entries.table_configs('7')


@pytest.mark.parametrize(('arguments', 'message'), [
    (['--config.train.stepps=3'], 'Did you mean "steps" instead of "stepps"?'),
    (['--config.train.steps=abc'], 'abc'),
    (['--config.train.steps=0'], 'config.py:a: train.steps is at least 1, not 0'),
    (['--config.model.width=10'], 'config.py:a: model: width is a multiple of 3'),
    (['--config.train.steps', '3'], 'unknown argument --config.train.steps'),
    (['--steps=3'], 'unknown argument --steps=3'),
    (['--programs=nowhere'], 'nowhere/train.py: no such program'),
    (['--table=4'], 'not allowed with'),
])  # fmt: skip
def test_mistakes_end_with_a_message_before_anything_runs(start, root, capsys, arguments, message):
    assert message in error(capsys, start, *arguments)
    assert not (root / 'out').exists()


def test_a_config_that_fails_is_named(root):
    with pytest.raises(ConfigError, match='config.py:z: KeyError: z'):
        entries.resolve([('z', f'{root}/config.py:z')], (), root / 'out', root)


def test_damaged_records_and_results_are_named(start, root, capsys):
    start()
    (root / 'out' / 'a' / 'record.json').write_text('{"train_seconds": 1')
    assert 'record.json is no record of a study' in error(capsys, start)
    (root / 'out' / 'a' / 'record.json').unlink()
    (root / 'eval.py').write_text((root / 'eval.py').read_text().replace("{'means': means}", '{}'))
    assert 'is not a file of results' in error(capsys, start)


def test_checkpoints_without_their_config_are_refused(start, root):
    start(names='a')
    (root / 'out' / 'a' / 'checkpoints' / '3').mkdir(parents=True)
    with pytest.raises(CheckpointError, match='has checkpoints but no config.json'):
        entries.check_folder(entries_of(root, 'a')[0])


def test_the_last_step_is_read_off_the_end_of_the_log(root):
    (entry,) = entries_of(root, 'a')
    assert entries.last_step(entry) == 0
    entry.folder.mkdir(parents=True)
    lines = ''.join(json.dumps({'step': step, 'loss': 1 / step}) + '\n' for step in range(1, 1001))
    (entry.folder / 'metrics.jsonl').write_text(lines + '{"step": 10')
    assert entries.last_step(entry) == 1000


def test_the_time_left_counts_operations(root, monkeypatch):
    a, b = entries_of(root, 'a', 'b')
    assert b.work / a.work == b.parameters / a.parameters > 1.2
    now = 100.0
    monkeypatch.setattr(progress.time, 'monotonic', lambda: now)
    stream = io.StringIO()
    line = progress.Progress([a, b], stream)
    a.folder.mkdir(parents=True)
    (a.folder / 'metrics.jsonl').write_text(json.dumps({'step': 1}) + '\n')
    now += 100
    line.training(a)
    left = 100 * (a.work * 3 / 4 + b.work) / (a.work / 4)
    assert (
        f'training, step 1/4, 1:40 so far; ETA of the study {progress.format_duration(left)}'
        in stream.getvalue()
    )


@pytest.mark.slow
def test_two_tiny_configs_really(tmp_path):
    config = tmp_path / 'sizes.py'
    config.write_text(
        'from configs import tiny\n\n\ndef get_config(width):\n    config = tiny.get_config()\n'
        '    config.model.width = int(width)\n    return config\n'
    )
    arguments = [
        f'--configs={config}:6,{config}:12', f'--out={tmp_path}/out',
        f'--config.data.dir={tmp_path}/data', f'--config.data.prepared_dir={tmp_path}/prepared',
    ]  # fmt: skip
    status, out, err = small.run('-m afunet_jax.study', *arguments)
    assert status == command.OK, err
    assert 'PSNR-mu' in out and '5,331' in out
    rows = json.loads((tmp_path / 'out' / 'study.json').read_text())['rows']
    a, b = (row['means']['psnr_mu'] for row in rows)
    assert rows[1]['differences']['psnr_mu'] == pytest.approx(b - a, abs=1e-12) and a != b
    status, again, err = small.run('-m afunet_jax.study', *arguments)
    assert (status, again) == (command.OK, out) and err.count('finished, skipped') == 2
    status, _, err = small.run('-m afunet_jax.study', *arguments, '--config.train.steps=31')
    assert status == 2 and 'train.steps: 30 there, 31 now' in err
    status, _, err = small.run('-m afunet_jax.study', *arguments, '--config.eval.pictures=False')
    assert status == command.OK and (tmp_path / 'out' / '6' / 'train.log').read_text().count('$ ') == 1
