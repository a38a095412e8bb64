"""Paired comparison of results as `reports.write_results` writes them."""

import copy
import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
import small
from scipy import stats

from afunet_jax import comparison, reports
from afunet_jax.errors import DataError

ABOUT = {
    'weights': 'a.pth',
    'model': {'width': 72},
    'data': {'dir': '/data/a', 'prepared_dir': 'p', 'layout': 'kalantari', 'subtract_min_ev': False},
    'eval': {
        'split': 'test',
        'pad_to': 128,
        'small_images': 'error',
        'baselines': True,
        'pictures': True,
        'scenes': 0,
    },
}


def rows_of(method, psnr_l, shift=0.0, names=None):
    names = names or [f'{i:03}' for i in range(len(psnr_l))]
    return [
        {
            'scene': name, 'method': method, 'height': 1000, 'width': 1500, 'seconds': 1.0,
            'psnr_l': value, 'psnr_mu': value + 2, 'ssim_l': 0.99 + shift, 'ssim_mu': 0.98,
        }
        for name, value in zip(names, psnr_l)
    ]  # fmt: skip


def write(folder, rows, **about):
    changed = copy.deepcopy(ABOUT)
    for section, values in about.items():
        changed[section].update(values)
    reports.write_results(folder, rows, changed)
    return folder / 'results.json'


@pytest.fixture
def figures():
    rng = np.random.default_rng(3)
    b = rng.normal(40, 3, 15)
    return (b + rng.normal(0.3, 0.4, 15)).tolist(), b.tolist()


@pytest.fixture
def pair(tmp_path, figures):
    a = write(tmp_path / 'a', rows_of('AFUNet', figures[0], 0.001) + rows_of('weighted merge', figures[1]))
    b = write(
        tmp_path / 'b', rows_of('AFUNet', figures[1]), data={'dir': '/elsewhere'}, eval={'pictures': False}
    )
    return a, b


def compared(a, b, **options):
    found = comparison.compare(comparison.read_results(a), comparison.read_results(b), **options)
    return {difference.metric: difference for difference in found}


def test_means_and_wins(pair, figures):
    found = compared(*pair)
    assert list(found) == ['psnr_l', 'psnr_mu', 'ssim_l', 'ssim_mu']
    a, b = map(np.array, figures)
    d = found['psnr_l']
    assert (d.mean_a, d.mean_b, d.mean) == pytest.approx((a.mean(), b.mean(), (a - b).mean()))
    assert (d.won, d.lost, d.tied) == ((a > b).sum(), (a < b).sum(), 0)
    assert found['psnr_mu'].mean == pytest.approx(d.mean)
    assert (found['ssim_l'].won, found['ssim_l'].mean) == (15, pytest.approx(0.001))
    same = found['ssim_mu']
    assert (same.won, same.lost, same.tied, same.mean, same.low, same.high) == (0, 0, 15, 0, 0, 0)


def test_swapping_swaps_everything(pair):
    there, back = compared(*pair), compared(*pair[::-1])
    for metric in there:
        x, y = there[metric], back[metric]
        assert (x.won, x.lost, x.tied) == (y.lost, y.won, y.tied)
        assert (x.mean, x.low, x.high) == pytest.approx((-y.mean, -y.high, -y.low), abs=1e-12)


def test_the_interval_is_that_of_a_plain_loop():
    values = np.random.default_rng(1).normal(0.1, 1, 9)
    rng = np.random.default_rng(7)
    means = [values[rng.integers(9, size=9)].mean() for _ in range(comparison.RESAMPLES)]
    expected = np.percentile(means, [2.5, 97.5])
    np.testing.assert_allclose(comparison.bootstrap_interval(values, seed=7), expected, rtol=0, atol=1e-12)


def test_the_interval_agrees_with_scipy():
    values = np.random.default_rng(2).normal(0.5, 2, 40)
    found = comparison.bootstrap_interval(values)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method='percentile', rng=np.random.default_rng(5)
    )
    np.testing.assert_allclose(found, theirs.confidence_interval, rtol=0, atol=0.03)
    assert found == comparison.bootstrap_interval(values)
    assert found != comparison.bootstrap_interval(values, seed=1)


def test_one_scene_has_no_interval(tmp_path):
    a, b = (write(tmp_path / n, rows_of('AFUNet', [v])) for n, v in (('a', 41.0), ('b', 40.0)))
    d = compared(a, b)['psnr_l']
    assert (d.mean, d.low, d.high, d.won) == (1.0, None, None, 1)
    text = comparison.format_comparison(comparison.read_results(a), comparison.read_results(b), [d])
    assert text.splitlines()[-1].split() == ['PSNR-l', '41.000', '40.000', '+1.000', '-', '1', '0', '0']


def test_infinite_and_missing_figures_forbid_the_mean_but_not_the_wins(tmp_path, figures):
    rows = rows_of('AFUNet', figures[0])
    rows[4]['psnr_l'] = float('inf')
    rows[5]['psnr_l'] = None
    a, b = write(tmp_path / 'a', rows), write(tmp_path / 'b', rows_of('AFUNet', figures[1]))
    found = compared(a, b)
    d = found['psnr_l']
    assert d.without == ('004', '005') and d.mean is None and d.low is None
    assert d.won + d.lost + d.tied == 14
    assert found['psnr_mu'].mean is not None
    text = comparison.format_comparison(
        comparison.read_results(a), comparison.read_results(b), list(found.values())
    )
    assert 'PSNR-l: no mean, because these scenes have no finite figure in both: 004, 005' in text


def test_folders_and_other_methods(pair):
    results = comparison.read_results(pair[0].parent, 'weighted merge')
    assert results.method == 'weighted merge' and results.path == pair[0]
    assert comparison.read_results(pair[0]).method == 'AFUNet'
    with pytest.raises(DataError, match="no method 'HDR', only AFUNet, weighted merge"):
        comparison.read_results(pair[0], 'HDR')


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'eval': {'pad_to': 8}}, 'eval.pad_to: 128 and 8'),
        ({'eval': {'hdrvdp2_preset': 'safnet'}}, "eval.hdrvdp2_preset: not set and 'safnet'"),
        ({'data': {'layout': 'tel'}}, "data.layout: 'kalantari' and 'tel'"),
        ({'data': {'subtract_min_ev': True}}, 'data.subtract_min_ev: False and True'),
    ],
)
def test_different_settings_are_refused(change, message, pair, tmp_path, figures):
    other = write(tmp_path / 'c', rows_of('AFUNet', figures[1]), **change)
    for options in ({}, {'common_scenes': True}):
        with pytest.raises(DataError, match=message):
            compared(pair[0], other, **options)


def test_settings_that_change_no_figure_may_differ(pair, tmp_path, figures):
    change = {'eval': {'report': False, 'report_inline': True, 'memory_limit': 3.0}, 'data': {'max_pixels': 1}}
    other = write(tmp_path / 'c', rows_of('AFUNet', figures[1]), **change)
    assert compared(pair[0], other)


def test_different_scenes_are_refused_or_left_out(pair, tmp_path, figures):
    other = write(tmp_path / 'c', rows_of('AFUNet', figures[1][:5]))
    with pytest.raises(
        DataError, match=r'10 only in .*a/results.json \(005, 006, 007, \.\.\.\) and 0 only in .*\(none\)'
    ):
        compared(pair[0], other)
    found = compared(pair[0], other, common_scenes=True)['psnr_l']
    assert found.mean == pytest.approx(np.mean(np.subtract(*figures)[:5]))
    strange = write(tmp_path / 'd', rows_of('AFUNet', figures[1], names=list('abcdefghijklmno')))
    with pytest.raises(DataError, match='no scene in common'):
        compared(pair[0], strange, common_scenes=True)


def test_other_images_under_the_same_name_are_refused(pair, tmp_path, figures):
    rows = rows_of('AFUNet', figures[1])
    rows[3]['width'] = 1499
    with pytest.raises(DataError, match=r'scene 003 has \(1000, 1500\) pixels.*\(1000, 1499\)'):
        compared(pair[0], write(tmp_path / 'c', rows))


def test_order_of_scenes_does_not_matter(pair, tmp_path, figures):
    other = write(tmp_path / 'c', rows_of('AFUNet', figures[1])[::-1])
    assert compared(pair[0], other) == compared(*pair)


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('{"scenes": ', 'is not JSON'),
        ('[]', 'is not a file of results'),
        ('{"scenes": []}', 'holds no scenes'),
        ('{"scenes": [{"method": "AFUNet"}]}', 'is not a file of results'),
        (
            '{"scenes": [{"method": "AFUNet", "scene": "1"}], "data": 1, "eval": {}}',
            'is not a file of results',
        ),
    ],
)
def test_damaged_files_are_refused(content, message, tmp_path):
    path = tmp_path / 'results.json'
    path.write_text(content)
    with pytest.raises(DataError, match=f'results.json.*{message}|{message}'):
        comparison.read_results(path)


def test_missing_files_and_unknown_metrics_are_refused(pair, tmp_path):
    with pytest.raises(DataError, match='none.json cannot be read'):
        comparison.read_results(tmp_path / 'none.json')
    content = json.loads(pair[1].read_text())
    for row in content['scenes']:
        row['hdrvdp2'] = 66.0
    pair[1].write_text(json.dumps(content))
    with pytest.raises(DataError, match='holds hdrvdp2, which is no metric'):
        compared(*pair)


def test_a_scene_twice_is_refused(tmp_path, figures):
    rows = rows_of('AFUNet', figures[0])
    with pytest.raises(DataError, match='same scene twice'):
        comparison.read_results(write(tmp_path, rows + rows[:1]))


def test_lower_is_better_where_the_registry_says_so(pair, monkeypatch):
    metrics = {**comparison.METRICS}
    metrics['ssim_l'] = dataclasses.replace(metrics['ssim_l'], higher_is_better=False)
    monkeypatch.setattr(comparison, 'METRICS', metrics)
    assert (compared(*pair)['ssim_l'].won, compared(*pair)['ssim_l'].lost) == (0, 15)


def test_the_command_prints_and_writes(pair, tmp_path, capsys):
    out = tmp_path / 'out' / 'comparison.json'
    assert comparison.main([str(pair[0]), str(pair[1].parent), f'--json={out}']) == 0
    text = capsys.readouterr().out
    assert f'A: AFUNet of {pair[0]}' in text and '95% interval' in text and 'A wins' in text
    content = json.loads(out.read_text())
    assert content['a'] == {'path': str(pair[0]), 'method': 'AFUNet'}
    assert len(content['scenes']) == 15 and content['bootstrap'] == {
        'resamples': 10_000,
        'level': 0.95,
        'seed': 0,
    }
    expected = compared(*pair)['psnr_l']
    assert content['metrics'][0]['metric'] == 'psnr_l'
    assert content['metrics'][0]['low'] == expected.low and content['metrics'][0]['won'] == expected.won
    assert comparison.main([str(pair[0]), str(pair[0]), '--method_b=weighted merge']) == 0
    assert 'B: weighted merge of' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--method=HDR'], "no method 'HDR'"),
        (['--json=.'], 'is a folder'),
        (['--seed=-1'], "0 or more, not '-1'"),
    ],
)
def test_mistakes_end_with_a_message(arguments, message, pair, capsys):
    with pytest.raises(SystemExit) as ended:
        comparison.main([*map(str, pair), *arguments])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_runs_as_a_module(pair):
    command = [sys.executable, '-m', 'afunet_jax.comparison', *map(str, pair)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=small.ROOT)
    assert done.returncode == 0, done.stderr
    assert 'PSNR-mu' in done.stdout
