"""Training curves: reading logs, round axes, the pictures."""

import imageio.v3 as iio
import numpy as np
import pytest
from trial import row, write_log

from afunet_jax import html_report
from afunet_jax.errors import DataError
from afunet_jax.html_report import curves


def test_curves_hold_what_the_log_holds(tmp_path):
    loss, psnr, rate = curves.read_log(write_log(tmp_path / 'metrics.jsonl'))
    assert (loss.title, len(loss.steps), loss.logarithmic) == ('Loss', 1000, True)
    np.testing.assert_allclose(loss.values, 0.1 / loss.steps)
    np.testing.assert_allclose(psnr.values, 30 + np.arange(1, 11))
    assert rate.values[-1] == 0 and not rate.logarithmic


def test_a_line_cut_off_at_the_end_is_left_out(tmp_path):
    path = write_log(tmp_path / 'metrics.jsonl')
    path.write_text(path.read_text() + '{"step": 1001, "lo')
    assert curves.read_log(path)[0].steps[-1] == 1000


def test_of_repeated_steps_the_last_counts(tmp_path):
    path = tmp_path / 'metrics.jsonl'
    path.write_text('{"step": 1, "loss": 3}\n{"step": 2, "loss": 2}\n{"step": 1, "loss": 1}\n')
    assert curves.read_log(path)[0].values.tolist() == [1, 2]


@pytest.mark.parametrize('line', ['nonsense', '[1]', '{"loss": 1}', '{"step": "1"}', '3', 'null'])
def test_other_files_are_refused(tmp_path, line):
    path = tmp_path / 'metrics.jsonl'
    path.write_text(f'{{"step": 1, "loss": 3}}\n{line}\n')
    with pytest.raises(DataError, match='metrics.jsonl, line 2'):
        curves.read_log(path)


def test_a_missing_log_is_an_error(tmp_path):
    with pytest.raises(DataError, match='nowhere.*cannot be read'):
        curves.read_log(tmp_path / 'nowhere')


def test_a_log_without_entries_has_no_curves(tmp_path):
    (tmp_path / 'metrics.jsonl').write_text('')
    assert curves.read_log(tmp_path / 'metrics.jsonl') == []
    text = html_report.write_report(tmp_path, [row('a', 'b')], [], {}, tmp_path).read_text()
    assert '<h2>Training</h2>' not in text and not (tmp_path / 'training_curves.png').exists()


RANGES = [(0, 1), (0.03, 0.9), (1e-6, 2e-4), (43.98, 44.02), (5, 5), (0, 0), (-3, 2), (0, 123456)]


@pytest.mark.parametrize('low, high', RANGES)
@pytest.mark.parametrize('logarithmic', [False, True])
def test_axes_enclose_the_values_with_few_and_different_marks(low, high, logarithmic):
    if logarithmic and low <= 0:
        low, high = 1e-5, max(high, 1e-5)
    axis = curves._axis(low, high, logarithmic)
    assert axis[0] <= low + 1e-9 * abs(low) and axis[-1] >= high - 1e-9 * abs(high)
    assert 2 <= len(axis) <= 10 and (np.diff(axis) > 0).all()
    assert len(set(curves._texts(axis))) == len(axis)


@pytest.mark.parametrize('count', [1, 2, 399, 5000])
def test_everything_stays_inside_the_chart(count):
    rng = np.random.default_rng(0)
    curve = curves.Curve('x', np.arange(1, count + 1), rng.random(count), False)
    chart = curves.lay_out(curve)
    for points in (chart.line, chart.band):
        if points is not None:
            assert (points >= [curves.LEFT - 1e-6, curves.TOP - 1e-6]).all()
            assert (
                points <= [curves.WIDTH - curves.RIGHT + 1e-6, curves.HEIGHT - curves.BOTTOM + 1e-6]
            ).all()
    assert len(chart.line) == min(count, curves.BUCKETS)
    assert (chart.band is not None) == (count > curves.BUCKETS)


def test_the_png_has_a_chart_a_curve_below_each_other(tmp_path):
    found = curves.read_log(write_log(tmp_path / 'metrics.jsonl'))
    curves.write_png(tmp_path / 'curves.png', found)
    picture = iio.imread(tmp_path / 'curves.png')
    assert picture.shape[1:] == (curves.WIDTH * curves.SCALE, 3)
    accent = (picture == curves.ACCENT[::-1]).all(-1)
    assert all(part.sum() > 500 for part in np.array_split(accent, 3))


def test_the_page_shows_them_and_the_png_lies_beside_it(tmp_path):
    write_log(tmp_path / 'metrics.jsonl')
    text = html_report.write_report(tmp_path, [row('a', 'b')], [], {}, tmp_path).read_text()
    assert text.count('<svg ') == 3 and 'Validation PSNR-mu (dB)' in text
    assert (tmp_path / 'training_curves.png').stat().st_size > 10_000
