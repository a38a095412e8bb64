"""Published rows: the data files, and tables that mix nothing."""

import csv
import re

import pytest

from afunet_jax import published, reports
from afunet_jax.data.layouts import LAYOUTS
from afunet_jax.errors import ConfigError, DataError
from afunet_jax.metrics.hdrvdp2 import PRESETS
from afunet_jax.metrics.registry import METRICS

TWO_TRAININGS = {('challenge123', 'AHDRNet')}  # by SAFNet's authors, and by S2R-HDR's
MEASURED = {'AFUNet': {'psnr_l': 42.1234, 'psnr_mu': 44.5, 'ssim_l': 0.99, 'ssim_mu': None, 'seconds': 1.0}}


def of(dataset, method):
    return [row for row in published.rows(dataset) if row.method == method]


def cells(text):
    """The table as a list of dicts, title to cell."""
    lines = text.split('\n\n')[0].splitlines()
    titles, *rows = [re.split(r'\s{2,}', line.strip()) for line in lines if set(line) != {'-'}]
    return [dict(zip(titles, row, strict=True)) for row in rows]


def test_data_sets_are_layouts():
    assert set(published.DATASETS) == {'challenge123', 'hu', 'kalantari', 'tel'}
    assert set(published.DATASETS) <= set(LAYOUTS)


@pytest.mark.parametrize('dataset', published.DATASETS)
def test_every_row_names_its_source_and_plausible_figures(dataset):
    rows = published.rows(dataset)
    assert rows
    limits = {'psnr': (20, 60), 'ssim': (0.9, 1), 'matlab': (0.9, 1), 'hdrvdp2': (50, 90)}
    for row in rows:
        assert row.dataset == dataset and row.method and row.paper and row.table and row.read_in
        assert 2015 < row.year < 2030 and str(row.year) in row.paper
        assert re.fullmatch(r'(\d{4}\.\d{5})?', row.arxiv)
        for name, figure in row.figures.items():
            low, high = limits[name.split('_')[0]]
            assert low < float(figure) < high, (row, name)


@pytest.mark.parametrize('dataset', published.DATASETS)
def test_no_row_stands_twice(dataset):
    keys = [(row.method, row.source) for row in published.rows(dataset)]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize('dataset', published.DATASETS)
def test_a_method_s_psnr_is_the_same_wherever_it_is_quoted(dataset):
    # PSNR has one definition, so that a difference would be an error of copying.
    for row in published.rows(dataset):
        for other in of(dataset, row.method):
            for name in {'psnr_l', 'psnr_mu'} & set(row.figures) & set(other.figures):
                same = row.figures[name] == other.figures[name]
                assert same or (dataset, row.method) in TWO_TRAININGS, (row, other)


def test_figures_of_the_paper():
    row = next(row for row in of('kalantari', 'AFUNet') if row.paper.startswith('AFUNet'))
    assert row.arxiv == '2506.23537'
    assert row.figures == {
        'psnr_mu': '44.91',
        'psnr_l': '42.59',
        'ssim_mu': '0.9923',
        published.UNKNOWN: '66.75',
    }
    (row,) = of('kalantari', 'DDPF-PR')
    assert (row.figures['psnr_mu'], row.figures['psnr_l']) == ('44.93', '42.61')


def test_safnet_s_own_figures_have_their_own_definitions():
    row = next(row for row in of('kalantari', 'SAFNet') if row.paper.startswith('SAFNet'))
    assert row.figures['hdrvdp2_safnet'] == '66.93' and published.UNKNOWN not in row.figures
    assert row.figures['matlab_ssim_l'] == '0.9917' and 'ssim_l' not in row.figures


@pytest.mark.parametrize('dataset', published.DATASETS)
def test_the_table_says_what_is_published_and_what_measured(dataset):
    rows = cells(published.table(dataset, MEASURED).text())
    assert [row['from'] for row in rows[-1:]] == ['measured']
    assert all(row['from'].startswith('published [') for row in rows[:-1])
    assert rows[-1]['method'] == 'AFUNet'
    assert (rows[-1]['PSNR-l'], rows[-1]['SSIM-l'], rows[-1]['SSIM-mu']) == ('42.123', '0.99000', '-')


@pytest.mark.parametrize('dataset', published.DATASETS)
def test_every_published_figure_is_in_the_table_with_its_source(dataset):
    text = published.table(dataset, {}).text()
    rows, notes = cells(text), dict(re.findall(r'^\[(\d+)\] (.*)$', text, re.MULTILINE))
    for row in published.rows(dataset):
        number = next(number for number, source in notes.items() if source == row.source)
        (cell,) = [line for line in rows if line['method'] == row.method and f'[{number}]' in line['from']]
        for name, figure in row.figures.items():
            title = published.UNKNOWN_TITLE if name == published.UNKNOWN else METRICS[name].title
            assert cell[title] == figure


@pytest.mark.parametrize('dataset', published.DATASETS)
def test_the_csv_file_says_the_same_for_programs(dataset, tmp_path):
    table = published.table(dataset, MEASURED)
    reports.write_sourced(tmp_path, table)
    assert (tmp_path / 'published.txt').read_text() == table.text() + '\n'
    with (tmp_path / 'published.csv').open(newline='') as file:
        read = list(csv.DictReader(file))
    for line, row in zip(table.lines, read, strict=True):
        assert (line.method, line.origin) == (row.pop('method'), row.pop('from'))
        sources = row.pop('sources')
        assert sources.split(reports.SOURCES_BETWEEN) == [table.sources[i - 1] for i in line.sources] or (
            not sources and line.origin == 'measured'
        )
        assert {name: figure for name, figure in row.items() if figure} == line.figures
        assert set(row) == set(table.titles) and all(METRICS[name] for name in row if name != published.UNKNOWN)


def test_every_file_of_the_package_is_a_data_set():
    assert {path.name for path in published.FOLDER.glob('*.*')} - {'__init__.py'} == {
        f'{dataset}.csv' for dataset in published.DATASETS
    }


def test_presets_never_share_a_column():
    measured = {'ours': {f'hdrvdp2_{preset}': 60.0 + i for i, preset in enumerate(PRESETS)}}
    rows = cells(published.table('kalantari', measured).text())
    columns = [title for title in rows[0] if 'HDR-VDP-2' in title]
    assert columns == [*(f'HDR-VDP-2 ({preset})' for preset in PRESETS), 'HDR-VDP-2 (unknown preset)']
    ours = rows[-1]
    assert [ours[column] for column in columns] == ['60.00', '61.00', '62.00', '63.00', '-']
    assert all(row['HDR-VDP-2 (sctnet)'] == '-' for row in rows[:-1])  # no paper here says that it used it


def test_hdrvdp2_without_its_preset_is_refused():
    with pytest.raises(ConfigError, match='AFUNet: no metric is called hdrvdp2.*preset'):
        published.table('kalantari', {'AFUNet': {'psnr_l': 40.0, 'hdrvdp2': 66.0}})


@pytest.mark.parametrize('function', [published.rows, lambda dataset: published.table(dataset, {})])
def test_unknown_data_sets_are_refused(function):
    with pytest.raises(ConfigError, match="'tursun', only of challenge123, hu, kalantari, tel"):
        function('tursun')


@pytest.mark.parametrize(
    ('column', 'value'), [('psnr_l', 'forty'), ('year', ''), ('preset', 'home'), ('psnr_mu', None)]
)
def test_damaged_rows_are_refused_with_their_line(column, value, tmp_path, monkeypatch):
    with (published.FOLDER / 'kalantari.csv').open(newline='') as file:
        rows = list(csv.DictReader(file))
    rows[2][column] = value
    names = [name for name in rows[0] if value is not None or name != column]
    with (tmp_path / 'kalantari.csv').open('w', newline='') as file:
        writer = csv.DictWriter(file, names, extrasaction='ignore')
        writer.writeheader()
        writer.writerows(rows)
    monkeypatch.setattr(published, 'FOLDER', tmp_path)
    with pytest.raises(DataError, match=r'kalantari\.csv:[24] is no row'):
        published.rows('kalantari')
