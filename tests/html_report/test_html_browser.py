"""The page in a real browser, opened from a disk: sliders, rows, keys, phone, errors, hostile names."""

import base64
import json

import cv2
import imageio.v3 as iio
import numpy as np
import pytest
from trial import EVIL, HEIGHT, MAP, WIDTH, beside, image, rows, scene, write_log

from afunet_jax import hdr, html_report
from afunet_jax.html_report import encoding

pytestmark = pytest.mark.browser

METHODS = ('AFUNet', 'middle exposure')
VIEWER = "document.querySelector('.scene').viewer"
CODE = 3  # of 255: what the JPEG may change in a mean over pixels


def report(folder, names=('first', 'second', 'third'), methods=METHODS, **options):
    pictures = [scene(name, methods, seed) for seed, name in enumerate(names)]
    log = write_log(folder / 'metrics.jsonl')
    return html_report.write_report(
        folder, rows(names, methods), pictures, {'weights': 'x.pth'}, log, published=beside(methods[0]), **options
    )


@pytest.fixture(scope='module', params=['beside', 'inline'])
def path(request, tmp_path_factory):
    return report(tmp_path_factory.mktemp('report'), inline=request.param == 'inline')


@pytest.fixture
def page(browser, path):
    browser.open(path)
    yield browser
    assert browser.problems == []


@pytest.fixture
def opened(page):
    show(page)
    return page


def show(page, index=0):
    page.run(f"document.querySelectorAll('.scene')[{index}].firstElementChild.click()")
    page.wait(
        f"document.querySelectorAll('.scene')[{index}].querySelector('.viewer')?.dataset.ready === 'yes'"
    )


def put(page, name, value, event='input'):
    page.run(
        f"{{ const e = document.querySelector('.{name}'); e.value = '{value}'; e.dispatchEvent(new Event('{event}')); }}"
    )
    page.settle()


def number(page, selector):
    return float(page.run(f"document.querySelector('{selector}').value"))


def box(page, selector):
    return page.run(f"""(() => {{
        const element = document.querySelector('{selector}');
        element.scrollIntoView({{ block: 'center' }});
        const b = element.getBoundingClientRect();
        return [b.left, b.top, b.width, b.height];
    }})()""")


def close_to(shown, linear, ev):
    """Pixels are the linear image at an exposure, clipped, with gamma 2.2."""
    expected = 255 * hdr.from_radiance(linear, hdr.exposure_time(np.float32(ev)))
    assert np.abs(shown - expected).mean() < CODE
    assert abs((shown - expected).mean()) < CODE / 2


def test_the_closed_page_loads_no_pictures_and_has_every_table(page):
    assert page.run("document.querySelectorAll('.viewer').length") == 0
    assert page.run("performance.getEntriesByType('resource').length") == 0
    assert page.run("document.querySelectorAll('.scene').length") == 3
    assert page.run("document.querySelectorAll('section svg polyline').length") == 3


@pytest.mark.parametrize('ev', [-6, -3.25, 0, 2, 6])
def test_the_exposure_slider_shows_the_image_at_that_exposure(opened, ev):
    put(opened, 'exposure', ev)
    close_to(opened.pixels('.side.left canvas'), image(0), ev)
    close_to(opened.pixels('.side.right canvas'), image(0), ev)
    assert (
        opened.run("document.querySelector('.exposure-text').value")
        == f'{"+" if ev > 0 else "−" if ev else ""}{abs(ev)} EV'
    )


def test_the_browser_decodes_as_python_does(opened, tmp_path):
    layer = json.loads(
        html_report.write_scene(tmp_path, scene('first')).path.read_text().partition(',')[2][:-3]
    )['layers'][0]
    base = cv2.imdecode(np.frombuffer(base64.b64decode(layer['data']), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    cells = -(-HEIGHT // encoding.CELL), -(-WIDTH // encoding.CELL)
    gains = np.frombuffer(base64.b64decode(layer['gains']), np.uint8).reshape(cells)
    linear = encoding.decode_hdr(encoding.GainMapped(base, gains, layer['low'], layer['high']))
    for ev in (-2, 3):
        put(opened, 'exposure', ev)
        expected = 255 * hdr.from_radiance(linear, hdr.exposure_time(np.float32(ev)))
        difference = np.abs(opened.pixels('.side.left canvas') - expected)
        assert (
            difference.mean() < 0.5 and np.quantile(difference, 0.999) < 3
        )  # rounding; decoders of JPEG differ by 1


def test_mu_law_is_that_of_the_field(opened):
    put(opened, 'exposure', 0)
    put(opened, 'tone', 'mu', 'change')
    shown = opened.pixels('.side.left canvas')
    assert np.abs(shown - 255 * hdr.mu_law(image(0))).mean() < 1.5 * CODE


def test_the_divider_splits_two_pictures(opened):
    box(opened, '.stage')
    put(opened, 'choose-right', 3, 'change')  # reference exposure
    for percent in (0, 30, 100):
        put(opened, 'divider', percent)
        left, _, width, _ = box(opened, '.stage')
        handle = box(opened, '.handle')
        assert handle[0] + handle[2] / 2 == pytest.approx(left + width * percent / 100, abs=1)
        assert opened.run("document.querySelector('.side.right').style.clipPath").startswith(
            f'inset(0px 0px 0px {percent}%'
        )


def test_the_screen_shows_left_and_right_of_the_divider(opened, tmp_path):
    put(opened, 'choose-right', 1, 'change')
    put(opened, 'divider', 60)
    left, top, width, _ = box(opened, '.stage')
    opened.screenshot(tmp_path / 'shot.png')
    shot = iio.imread(tmp_path / 'shot.png')[..., :3].astype(int)
    pictures = [opened.pixels(f'.side.{side} canvas').astype(int) for side in ('left', 'right')]
    scale = width / WIDTH
    assert scale > 8
    for column in range(5, WIDTH - 5, 4):
        side = int((column + 0.5) / WIDTH > 0.6)
        at = shot[round(top + 45.5 * scale), round(left + (column + 0.5) * scale)]
        if abs((column + 0.5) / WIDTH - 0.6) > 0.01:
            assert np.abs(at - pictures[side][45, column]).max() <= 2
    assert np.abs(pictures[0] - pictures[1]).mean() > 5


def test_dragging_moves_the_divider_and_pans_when_zoomed(opened):
    left, top, width, height = box(opened, '.stage')
    opened.drag(
        (left + width / 2, top + height / 2),
        (left + 0.3 * width, top + height / 2),
        (left + 0.2 * width, top + height / 2),
    )
    assert number(opened, '.divider') == pytest.approx(20, abs=1)
    opened.run("document.querySelector('.zoom-in').click()")
    opened.run("document.querySelector('.zoom-in').click()")
    before = opened.run(f'[{VIEWER}.x, {VIEWER}.y]')
    opened.drag((left + 0.7 * width, top + height / 2), (left + 0.7 * width - 20, top + height / 2 - 10))
    assert opened.run(f'[{VIEWER}.x, {VIEWER}.y]') == pytest.approx([before[0] - 20, before[1] - 10], abs=0.1)
    assert number(opened, '.divider') == pytest.approx(20, abs=1)
    opened.drag((left + 0.2 * width, top + height / 2), (left + 0.4 * width, top + height / 2))
    assert number(opened, '.divider') == pytest.approx(40, abs=1)


def test_panning_ends_at_the_borders_and_fit_shows_all(opened):
    for _ in range(5):
        opened.run("document.querySelector('.zoom-in').click()")
    opened.run(f'{VIEWER}.pan(1e6, -1e6)')
    scale = opened.run(f'{VIEWER}.fit() * {VIEWER}.zoom')
    x, y = opened.run(f'[{VIEWER}.x, {VIEWER}.y]')
    assert x == 0 and y == pytest.approx(box(opened, '.stage')[3] - HEIGHT * scale, abs=1.5)
    opened.run("document.querySelector('.zoom-fit').click()")
    assert opened.run(f'[{VIEWER}.zoom, {VIEWER}.x]') == pytest.approx([1, 0], abs=0.5)


def test_both_pictures_keep_the_same_place(opened):
    opened.run(f'{VIEWER}.zoomBy(3, [100, 50])')
    transforms = opened.run("[...document.querySelectorAll('.side canvas')].map((c) => c.style.transform)")
    assert transforms[0] == transforms[1] and 'scale' in transforms[0]


def test_error_and_probability_maps_have_colours_and_legends(opened):
    titles = opened.run(f'{VIEWER}.layers.map((layer) => layer.title)')
    put(opened, 'choose-left', titles.index('error, middle exposure'), 'change')
    put(opened, 'choose-right', titles.index(f'{MAP}, AFUNet'), 'change')
    assert opened.run("document.querySelectorAll('.legend').length") == 2
    error, probability = (opened.pixels(f'.side.{side} canvas').astype(int) for side in ('left', 'right'))
    assert error[:5, :10].sum(-1).mean() < error[:5, -20:].sum(-1).mean()  # the error grows with the radiance
    assert probability[0].sum(-1).max() < 60 and probability[-1].sum(-1).min() > 500
    before = opened.pixels('.side.left canvas')
    put(opened, 'exposure', 6)
    assert (opened.pixels('.side.left canvas') == before).all()


def test_the_number_of_a_published_row_leads_to_its_source(page):
    page.run("document.querySelector('.published a[href=\"#source-2\"]').click()")
    page.settle()
    found = page.run("""(() => {
        const target = document.querySelector(':target'), b = target.getBoundingClientRect();
        return [target.textContent, b.top >= -1 && b.bottom <= innerHeight + 1];
    })()""")
    assert found == ['another paper', True]
    assert page.run("document.querySelectorAll('.published tr.measured').length") == 1


def test_thumbnails_show_every_layer_and_choose_it(opened):
    assert opened.run("document.querySelectorAll('.strip li').length") == 8
    for i in range(8):
        assert (
            opened.pixels(f'.strip li:nth-child({i + 1}) canvas').std() > 0 or i == 4
        )  # the first method has no error
    opened.run("document.querySelectorAll('.strip li')[3].querySelectorAll('button')[1].click()")
    assert opened.run("document.querySelector('.tag-right').textContent") == 'reference exposure'
    assert opened.run("document.querySelectorAll('[aria-pressed=true]').length") == 2


def test_everything_works_by_keyboard(page):
    page.run("document.querySelector('.scene summary').focus()")
    page.press('Enter')
    page.wait("document.querySelector('.viewer')?.dataset.ready === 'yes'")
    page.run("document.querySelector('.exposure').focus()")
    start = number(page, '.exposure')
    page.press('ArrowRight', 'ArrowRight')
    assert number(page, '.exposure') == start + 0.5
    close_to(page.pixels('.side.left canvas'), image(0), start + 0.5)
    page.press('Home')
    close_to(page.pixels('.side.left canvas'), image(0), -6)
    page.run("document.querySelector('.divider').focus()")
    page.press('ArrowLeft')
    assert number(page, '.divider') == 49
    page.run("document.querySelector('.stage').focus()")
    page.press('ArrowRight', 'ArrowRight', ']')
    assert (number(page, '.divider'), number(page, '.exposure')) == (51, -5.75)
    page.press('+', '+')
    zoom, x = page.run(f'[{VIEWER}.zoom, {VIEWER}.x]')
    assert zoom == pytest.approx(1.25**2)
    page.press('ArrowRight')
    assert page.run(f'{VIEWER}.x') < x
    page.press('0')
    assert page.run(f'{VIEWER}.zoom') == 1
    page.press('1')
    assert page.run(f'{VIEWER}.fit() * {VIEWER}.zoom') >= 1


def test_tab_reaches_every_control_and_focus_is_seen(opened):
    opened.run("document.querySelector('.scene summary').focus()")
    reached = []
    for _ in range(14):
        opened.press('Tab')
        reached.append(opened.run("document.activeElement.className.split(' ')[0]"))
        assert opened.run('getComputedStyle(document.activeElement).outlineStyle') not in ('none', '')
    controls = [
        'choose-left',
        'swap',
        'choose-right',
        'exposure',
        'tone',
        'zoom-out',
        'zoom-in',
        'zoom-fit',
        'zoom-one',
        'stage',
        'divider',
    ]
    assert [name for name in reached if name in controls] == controls


def test_every_control_has_a_name(opened):
    tree = opened.send('Accessibility.getFullAXTree')['nodes']
    roles = ('slider', 'button', 'combobox', 'image', 'region')
    named = [
        (node['role']['value'], node.get('name', {}).get('value')) for node in tree if not node['ignored']
    ]
    missing = [role for role, name in named if role in roles and not name]
    assert missing == []
    assert {'Exposure', 'Divider'} <= {name.split(' ')[0] for role, name in named if role == 'slider'}


def test_rows_open_and_close_and_free_their_pictures(opened):
    show(opened, 2)
    assert opened.run("document.querySelectorAll('.viewer').length") == 2
    close_to(
        opened.pixels('.scene:nth-child(3) .side.left canvas'),
        image(2),
        number(opened, '.scene:nth-child(3) .exposure'),
    )
    opened.run("document.querySelector('.scene summary').click()")
    opened.wait("document.querySelectorAll('.viewer').length === 1")
    show(opened, 0)
    close_to(opened.pixels('.side.left canvas'), image(0), number(opened, '.exposure'))


def test_opening_and_closing_at_once_does_no_harm(page):
    for _ in range(7):
        page.run("document.querySelector('.scene summary').click()")
    page.wait("document.querySelector('.viewer')?.dataset.ready === 'yes'")
    assert page.run("document.querySelectorAll('.viewer').length") == 1


def test_the_metric_and_the_order_of_the_list_can_be_chosen(page):
    def names():
        return page.run("[...document.querySelectorAll('.scene .name')].map((e) => e.textContent)")

    page.run(
        "{ const o = document.getElementById('order'); o.value = 'high'; o.dispatchEvent(new Event('change')); }"
    )
    assert names() == ['third', 'second', 'first']
    page.run(
        "{ const o = document.getElementById('metric'); o.value = 'psnr_l'; o.dispatchEvent(new Event('change')); }"
    )
    assert page.run("document.querySelector('.scene .value span:last-child').textContent") == '32.000'
    page.run(
        "{ const o = document.getElementById('order'); o.value = 'given'; o.dispatchEvent(new Event('change')); }"
    )
    assert names() == ['first', 'second', 'third']


@pytest.mark.parametrize('width', [320, 390, 768])
def test_a_phone_has_no_horizontal_scroll(browser, path, width):
    browser.open(path, width=width, height=844, mobile=True, scale=2, dark=True)
    for state in ('closed', 'open'):
        if state == 'open':
            show(browser)
        assert browser.run('[document.documentElement.scrollWidth, innerWidth]') == [width, width]
    outside = browser.run("""[...document.querySelectorAll('.viewer *')].filter((e) => !e.closest('.stage') && !e.closest('option')
        && e.getBoundingClientRect().width && e.getBoundingClientRect().right > innerWidth + 0.5).map((e) => e.className)""")
    assert outside == [] and browser.problems == []


def test_two_fingers_zoom_on_a_phone(browser, path):
    browser.open(path, width=390, height=844, mobile=True, scale=2)
    show(browser)
    left, top, width, height = box(browser, '.stage')
    x, y = left + width / 2, top + height / 2
    for kind, apart in (('touchStart', 40), ('touchMove', 60), ('touchMove', 80)):
        points = [{'x': x - apart / 2, 'y': y, 'id': 0}, {'x': x + apart / 2, 'y': y, 'id': 1}]
        browser.send('Input.dispatchTouchEvent', type=kind, touchPoints=points)
    browser.send('Input.dispatchTouchEvent', type='touchEnd', touchPoints=[])
    browser.settle()
    assert browser.run(f'{VIEWER}.zoom') == pytest.approx(2, rel=0.1)
    assert browser.run('visualViewport.scale') == 1 and browser.problems == []


def test_long_names_do_not_widen_a_phones_page(browser, tmp_path):
    long = 'a' * 200
    browser.open(report(tmp_path, [long], (long, 'other')), width=360, height=700, mobile=True)
    show(browser)
    assert browser.run('[document.documentElement.scrollWidth, innerWidth]') == [360, 360]
    assert browser.run("document.querySelector('.published .measured th').offsetWidth") < 360 / 2  # it stays in view


def test_light_and_dark(browser, path):
    brightness = []
    for dark in (False, True):
        browser.open(path, dark=dark)
        brightness.append(browser.run('getComputedStyle(document.body).backgroundColor'))
    browser.run(
        "{ const t = document.getElementById('theme'); t.value = 'light'; t.dispatchEvent(new Event('change')); }"
    )
    assert brightness[0] != brightness[1]
    assert browser.run('getComputedStyle(document.body).backgroundColor') == brightness[0]


@pytest.mark.parametrize('inline', [False, True])
def test_hostile_names_are_shown_and_do_nothing(browser, tmp_path, inline):
    path = report(tmp_path, EVIL, (*EVIL, 'plain'), inline=inline, title=EVIL[0])
    browser.open(path)
    for index in range(len(EVIL)):
        show(browser, index)
    assert browser.run(
        "[...document.querySelectorAll('.scene .name bdi')].map((e) => e.textContent)"
    ) == list(EVIL)
    assert browser.run("[...document.querySelector('.choose-left').options].map((e) => e.textContent)")[
        :3
    ] == list(EVIL)
    assert browser.run("document.querySelector('.tag-left').textContent") == EVIL[0]
    assert browser.run('document.title') == EVIL[0]
    assert browser.run("document.querySelectorAll('main img, main script, [onerror]').length") == 0
    assert browser.problems == []


def test_markup_that_got_in_would_still_not_run(browser, path):
    browser.open(path)
    browser.run(
        """document.body.insertAdjacentHTML('beforeend', '<img src=x onerror="document.title=`owned`">')"""
    )
    browser.settle()
    assert browser.run('document.title') != 'owned'
    assert any('Content Security Policy' in problem for problem in browser.problems)


def test_a_missing_file_is_said(browser, tmp_path):
    path = report(tmp_path)
    for file in (tmp_path / 'report_files').iterdir():
        file.unlink()
    browser.open(path)
    browser.run("document.querySelector('.scene summary').click()")
    browser.wait(
        "document.querySelector('[role=alert]')?.textContent.includes('is missing beside this page')"
    )


def test_one_picture_alone_can_be_seen(browser, tmp_path):
    only = html_report.ScenePictures('a', {'AFUNet': image(0)})
    browser.open(html_report.write_report(tmp_path, rows(['a'], ['AFUNet']), [only], {}))
    show(browser)
    close_to(browser.pixels('.side.left canvas'), image(0), number(browser, '.exposure'))
    assert browser.problems == []
