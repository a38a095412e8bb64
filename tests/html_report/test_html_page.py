"""The page without a browser: numbers, escaping, files, errors."""

import dataclasses
import html.parser
import json
import re

import numpy as np
import pytest
from trial import EVIL, HEIGHT, MAP, WIDTH, beside, row, rows, scene, write_log

from afunet_jax import html_report
from afunet_jax.errors import DataError
from afunet_jax.html_report import markup, page, scenes


class Reader(html.parser.HTMLParser):
    """Tags with their attributes, and the text outside of scripts and styles."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.scripts, self._inside = [], '', [], None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self._inside = tag
        if tag == 'script':
            self.scripts.append('')

    def handle_endtag(self, tag):
        self._inside = None

    def handle_data(self, data):
        if self._inside == 'script':
            self.scripts[-1] += data
        elif self._inside != 'style':
            self.text += data


def read(path):
    return Reader(path.read_text(encoding='utf-8'))


def test_the_page_has_means_and_standard_deviations_of_the_sample(tmp_path):
    values = [40.0, 41.0, 45.0]
    found = [row(str(i), 'AFUNet', psnr_mu=value) for i, value in enumerate(values)]
    text = read(html_report.write_report(tmp_path, found, [], {})).text
    assert f'{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}' in text


def test_summary():
    assert page.summary([1.0, 3.0]) == (2.0, pytest.approx(2**0.5))
    assert page.summary([1.0]) == (1.0, None)
    assert page.summary([1.0, None]) == (None, None)
    assert page.summary([1.0, float('inf')]) == (float('inf'), None)


def test_only_numbers_are_metrics_and_costs_come_last():
    found = [row('a', 'x', psnr_mu=None, q=1, preset='sctnet', empty=None), row('b', 'x', psnr_mu=1.0, q=2)]
    assert page.metrics_of(found) == ['psnr_mu', 'q', 'seconds']


def test_best_is_marked_per_column_and_lower_seconds_are_better(tmp_path):
    found = [row('a', 'one', psnr_mu=40.0, ssim_mu=0.5), row('a', 'two', psnr_mu=30.0, ssim_mu=0.5)]
    found[1]['seconds'] = 0.25
    table = page.means_table(found, ['psnr_mu', 'ssim_mu', 'seconds'])
    assert re.findall(r'<td class="best">([^<]*)', table) == ['40.000', '0.25']


def test_published_rows_stand_beside_ours_with_their_sources(tmp_path):
    path = html_report.write_report(tmp_path, rows(['a']), [], {}, published=beside())
    section = path.read_text().split('<section class="published">')[1].split('</section>')[0]
    lines = [re.findall(r'<t[dh][^>]*>(.*?)</t[dh]>', line) for line in section.split('<tr')[1:]]
    shown = [[re.sub('<[^>]*>', '', cell) for cell in line] for line in lines]
    assert shown == [
        ['method', 'from', 'PSNR-mu', 'HDR-VDP-2 (sctnet)', 'HDR-VDP-2 (safnet)'],
        ['first', 'published [1]', '44.10', '–', '66.93'],
        ['second', 'published [1][2]', '44.91', '–', '–'],
        ['AFUNet', 'measured', '44.500', '66.75', '–'],
    ]
    assert set(re.findall('href="#(.*?)"', section)) == set(re.findall(' id="(.*?)"', section))
    assert re.findall('<li id="source-2"><bdi>(.*?)</bdi>', section) == ['another paper']


def test_infinite_and_missing_scores_are_shown(tmp_path):
    found = [row('a', 'x', psnr_mu=float('inf'), ssim_mu=None), row('b', 'x', psnr_mu=30.0, ssim_mu=0.5)]
    path = html_report.write_report(tmp_path, found, [], {})
    assert '∞' in read(path).text and '–' in read(path).text
    assert json.loads(read(path).scripts[0])['values'][0]['psnr_mu'] == [
        {'text': '∞', 'best': False, 'value': 'Infinity'}
    ]


@pytest.mark.parametrize('evil', EVIL)
@pytest.mark.parametrize('inline', [False, True])
def test_names_from_files_are_text(tmp_path, evil, inline):
    names, methods = [evil, 'plain'], (evil, 'other')
    found = rows(names, methods)
    for entry in found:
        entry['preset'] = evil
    settings = {'weights': evil, evil: evil, 'model': {evil: [evil]}}
    pictures = [scene(name, methods) for name in names]
    plain = read(
        html_report.write_report(
            tmp_path / 'plain',
            rows(['1', '2'], ('3', '4')),
            [scene(name, ('3', '4')) for name in '12'],
            {'weights': '5', '6': '7', 'model': {'8': '9'}},
            inline=inline,
            title='0',
            published=beside('8'),
        )
    )
    ours = read(
        html_report.write_report(
            tmp_path / 'evil', found, pictures, settings, inline=inline, title=evil, published=beside(evil)
        )
    )
    assert [tag for tag, _ in ours.tags] == [tag for tag, _ in plain.tags]
    assert [sorted(attributes) for _, attributes in ours.tags] == [
        sorted(attributes) for _, attributes in plain.tags
    ]
    assert evil in ours.text
    for name in ('src', 'href', 'data-source', 'id', 'data-scene'):
        for _, attributes in ours.tags:
            assert re.fullmatch(r'#?[\w./-]*', attributes.get(name) or '', re.ASCII)


@pytest.mark.parametrize('evil', EVIL)
def test_a_scenes_file_is_ascii_and_holds_no_markup(tmp_path, evil):
    path = html_report.write_scene(tmp_path, scene(evil, (evil,))).path
    text = path.read_text(encoding='ascii')
    assert not set('<>&') & set(text)
    titles = {layer['title'] for layer in json.loads(text.partition(',')[2][:-3])['layers']}
    assert titles == {evil, 'ground truth', 'reference exposure', f'error, {evil}', f'{MAP}, {evil}'}


def test_file_names_that_are_no_utf8_can_be_shown(tmp_path):
    name = b'caf\xe9'.decode('utf-8', 'surrogateescape')
    path = html_report.write_report(tmp_path, rows([name]), [scene(name)], {'dir': name})
    assert 'caf\\udce9' in read(path).text


def test_fields_of_the_template_are_not_filled_twice(tmp_path):
    path = html_report.write_report(tmp_path, rows(['{{script}}']), [], {}, title='{{settings}}')
    assert '{{script}}' in read(path).text and '<title>{{settings}}</title>' in path.read_text()


def test_keys_differ_and_are_plain():
    names = ['a b', 'a/b', 'A b', '../..', '', 'x' * 300, *EVIL]
    keys = [scenes.scene_key(name) for name in names]
    assert len(set(keys)) == len(names)
    assert all(re.fullmatch(r'[a-z0-9-]{1,49}', key) for key in keys)


def test_escape():
    assert markup.escape('<&"\'>') == '&lt;&amp;&quot;&#x27;&gt;'
    assert (
        markup.element('p', {'title': '"', 'id': None}, '<', markup.Markup('<b>'))
        == '<p title="&quot;">&lt;<b></p>'
    )
    assert json.loads(markup.script_json('</script>\u2028&')) == '</script>\u2028&'


def test_the_page_needs_no_network(tmp_path):
    path = html_report.write_report(
        tmp_path, rows(['a']), [scene('a')], {}, write_log(tmp_path / 'metrics.jsonl')
    )
    everything = path.read_text() + ''.join(p.read_text() for p in (tmp_path / 'report_files').iterdir())
    assert not re.search(r'https?:|@import|url\(|//[a-z]+\.', everything.replace('/// ', ''))


def test_files_beside_the_page_or_inline(tmp_path):
    beside = html_report.write_report(tmp_path / 'beside', rows(['a', 'b']), [scene('a')], {})
    sources = [a['data-source'] for tag, a in read(beside).tags if a.get('data-source')]
    assert [(tmp_path / 'beside' / source).is_file() for source in sources] == [True]
    inline = html_report.write_report(
        tmp_path / 'inline', rows(['a', 'b']), (scene(name) for name in 'ab'), {}, inline=True
    )
    assert [path.name for path in inline.parent.iterdir()] == ['report.html']
    found = [json.loads(text) for text in read(inline).scripts[1:-1]]
    assert [data['width'] for data in found] == [WIDTH, WIDTH]


def test_scenes_may_be_written_as_they_are_done(tmp_path):
    written = [html_report.write_scene(tmp_path, scene(name)) for name in 'ab']
    page_one = html_report.write_report(tmp_path, rows('ab'), written, {}).read_text()
    page_two = html_report.write_report(
        tmp_path / 'other', rows('ab'), [scene(name) for name in 'ab'], {}
    ).read_text()
    assert page_one == page_two


def test_without_ground_truth_or_reference(tmp_path):
    only = html_report.ScenePictures('a', {'AFUNet': scene('a').predictions['AFUNet']})
    path = html_report.write_scene(tmp_path, only).path
    data = json.loads(path.read_text().partition(',')[2][:-3])
    assert [layer['title'] for layer in data['layers']] == ['AFUNet'] and data['right'] == 0


@pytest.mark.parametrize('amount', [0.0, 0.1, 0.3])
def test_quality_falls_until_a_scene_fits(tmp_path, monkeypatch, amount):
    rng = np.random.default_rng(0)
    noisy = {str(i): 0.5 + np.float32(amount) * rng.random((240, 360, 3), np.float32) for i in range(4)}
    tried, jpeg = [], scenes.encoding.jpeg
    monkeypatch.setattr(
        scenes.encoding, 'jpeg', lambda image, quality: tried.append(quality) or jpeg(image, quality)
    )
    path = html_report.write_scene(tmp_path, html_report.ScenePictures('noise', noisy, noisy['0'])).path
    assert (len(set(tried)) == 1) == (amount == 0)
    assert path.stat().st_size < 1.05 * scenes.BYTES_PER_PIXEL * 240 * 360


def test_15_scenes_of_1000_by_1500_stay_below_60_megabytes():
    assert 15 * scenes.BYTES_PER_PIXEL * 1000 * 1500 < 59e6


def test_gains_count_and_small_images_keep_the_best_quality(tmp_path, monkeypatch):
    path = html_report.write_scene(tmp_path, scene('a')).path
    layers = json.loads(path.read_text().partition(',')[2][:-3])['layers']
    best = path.stat().st_size
    assert best > scenes.BYTES_PER_PIXEL * HEIGHT * WIDTH
    whole = sum(len(layer['data']) + len(layer.get('gains', '')) for layer in layers)
    for limit, same in ((whole, True), (whole - 1, False)):
        monkeypatch.setattr(scenes, 'SMALL_FILE', limit)
        assert (html_report.write_scene(tmp_path, scene('a')).path.stat().st_size == best) == same


BAD = {
    'no prediction': ({'predictions': {}}, 'at least one prediction'),
    'another size': (
        {'ground_truth': np.ones((HEIGHT, WIDTH + 1, 3), np.float32)},
        'ground truth: the shape must be',
    ),
    'grey': ({'predictions': {'m': np.ones((HEIGHT, WIDTH), np.float32)}}, 'm: the shape must be'),
    'nan': ({'predictions': {'m': np.full((HEIGHT, WIDTH, 3), np.nan, np.float32)}}, 'not finite'),
    'probability': ({'probability_maps': {MAP: {'m': np.full((HEIGHT, WIDTH), 1.5)}}}, 'sctnet.*, m: .*0 to 1'),
    'float reference': ({'reference': np.ones((HEIGHT, WIDTH, 3), np.float32)}, 'uint16 or uint8'),
}


@pytest.mark.parametrize('change, message', BAD.values(), ids=BAD)
def test_bad_pictures_are_refused(tmp_path, change, message):
    with pytest.raises(DataError, match=message):
        html_report.write_scene(tmp_path, dataclasses.replace(scene('a'), **change))
    assert not list(tmp_path.iterdir())


def test_rows_and_pictures_must_fit(tmp_path):
    with pytest.raises(DataError, match='one row'):
        html_report.write_report(tmp_path, [], [], {})
    with pytest.raises(DataError, match='scene b: .* no row'):
        html_report.write_report(tmp_path, rows(['a']), [scene('b')], {})
    with pytest.raises(DataError, match='given twice'):
        html_report.write_report(tmp_path, rows(['a']), [scene('a'), scene('a')], {})
