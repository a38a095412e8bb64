"""The page in a real browser: photos in, progress, the slider, downloads, keys, phone, errors."""

import base64

import numpy as np
import pytest
from photos import photo_files
from PIL import Image

from afunet_jax import hdr, image_io
from afunet_jax.data.synthetic import make_scene
from afunet_jax.photos import response

pytestmark = pytest.mark.browser

HEIGHT, WIDTH = 256, 384
CODE = 3  # of 255: what the viewer's JPEG may change in a mean over pixels


@pytest.fixture(scope='module')
def jpegs(tmp_path_factory):
    """Three photos of a street with their times in EXIF, not in order."""
    folder, scene = tmp_path_factory.mktemp('jpegs'), make_scene(0, 0, HEIGHT, WIDTH)
    paths = []
    for name, ldr, ev in zip(('b <i>2.jpg', 'a 1.jpg', 'c 3.jpg'), scene.ldrs, scene.evs):
        stored = np.rint(255 * photo_files.srgb(response.decode_16(ldr))).astype(np.uint8)
        paths.append(folder / name)
        Image.fromarray(stored).save(paths[-1], quality=95, exif=photo_files.exif(float(2**ev) / 100, 8.0, 100))
    return paths


def visit(page, server, width=1280, height=900, mobile=False):
    page.problems.clear()
    page.send('Emulation.setDeviceMetricsOverride', width=width, height=height, deviceScaleFactor=1, mobile=mobile)
    page.send('Emulation.setTouchEmulationEnabled', enabled=mobile)
    page.send('Page.navigate', url=f'http://localhost:{server.port}/')
    page.wait(f'location.port === "{server.port}" && document.readyState === "complete"')


def begin(page, server):
    """The page as one who comes for the first time sees it."""
    page.run('try { sessionStorage.clear(); } catch { /* no page yet */ }')
    visit(page, server)


def choose(page, paths):
    page.send('DOM.enable')
    found = page.send('Runtime.evaluate', expression='document.getElementById("files")')['result']['objectId']
    page.send('DOM.setFileInputFiles', objectId=found, files=[str(path) for path in paths])
    page.wait(f'document.querySelectorAll("#photos li").length === {len(paths)}')


def by_keyboard(page, name, *keys):
    page.run(f'document.querySelector("{name}").focus()')
    page.press(*keys)


def downloaded(page, kind):
    text = page.run(f"""fetch(document.querySelector('[data-file={kind}]').href).then((answer) => answer.arrayBuffer())
        .then((data) => btoa(new Uint8Array(data).reduce((text, byte) => text + String.fromCharCode(byte), '')))""")
    return base64.b64decode(text)


def shown(linear, ev):
    return 255 * hdr.from_radiance(linear, hdr.exposure_time(np.float32(ev)))


@pytest.fixture(scope='module')
def merged(browser, server, jpegs):
    """The page with its result, by the keyboard alone; what was seen of the progress."""
    visit(browser, server)
    choose(browser, jpegs)
    browser.run("""{
        window.stages = [];
        new MutationObserver(() => stages.push(document.querySelector('[aria-current]')?.dataset.stage))
            .observe(document.getElementById('stages'), { subtree: true, attributes: true });
    }""")
    by_keyboard(browser, '#merge', 'Enter')
    browser.wait("!document.getElementById('result').hidden || !document.getElementById('error').hidden")
    browser.wait("document.querySelector('.viewer')?.dataset.ready === 'yes'")
    yield browser
    assert browser.problems == []


def test_the_result_is_seen_at_any_exposure_and_downloaded(merged, tmp_path):
    path = tmp_path / 'result.hdr'
    path.write_bytes(downloaded(merged, 'hdr'))
    image = image_io.read_hdr(path)
    assert image.shape == (HEIGHT, WIDTH, 3)
    for ev in (-6, 0, 6):
        merged.run(f"""{{ const slider = document.querySelector('.exposure');
            slider.value = {ev}; slider.dispatchEvent(new Event('input')); }}""")
        merged.settle()
        assert np.abs(merged.pixels('.side.left canvas') - shown(image, ev)).mean() < CODE
    assert merged.run('document.querySelector("[data-file=exr]").download') == 'a 1.exr'
    assert downloaded(merged, 'exr')[:4] == image_io.EXR_MAGIC
    for kind in ('png', 'hdr_png'):
        assert downloaded(merged, kind)[:4] == b'\x89PNG'


def test_the_photos_stand_beside_it_in_the_order_of_exposure(merged, jpegs):
    titles = merged.run("[...document.querySelectorAll('.strip figcaption span')].map((span) => span.textContent)")
    assert titles == ['HDR', 'short, +0.00 EV: b <i>2.jpg', 'middle, +2.00 EV: a 1.jpg', 'long, +4.00 EV: c 3.jpg']
    assert merged.run('document.querySelector(".tag-right").textContent') == titles[2]
    merged.run("""{ const slider = document.querySelector('.exposure');
        slider.value = 2; slider.dispatchEvent(new Event('input')); }""")
    merged.settle()
    stored = np.asarray(Image.open(jpegs[1])) / 255
    taken = 255 * response.srgb_to_linear(stored) ** (1 / hdr.GAMMA)
    assert np.abs(merged.pixels('.side.right canvas') - taken).mean() < CODE
    report = merged.run('document.getElementById("report-text").textContent')
    assert 'a 1.jpg: +2.00 EV (EXIF), srgb' in report and 'tiny.safetensors' in report
    order = ['uploading', 'waiting', 'reading', 'compiling', 'merging', 'writing']  # a quick stage may pass unseen
    seen = [order.index(stage) for stage in merged.run('stages') if stage]
    assert seen[0] == 0 and seen == sorted(seen) and len(set(seen)) > 2


def test_nothing_is_loaded_from_elsewhere(merged, server):
    urls = merged.run("performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert urls and all(url.startswith((f'http://localhost:{server.port}/', 'data:')) for url in urls)


def test_loaded_anew_on_a_phone_the_result_is_still_there_and_fits(merged, server):
    visit(merged, server, 390, 844, mobile=True)
    merged.wait("document.querySelector('.viewer')?.dataset.ready === 'yes'")
    assert merged.run('document.documentElement.scrollWidth') <= 390
    sizes = merged.run("""[...document.querySelectorAll('#form button, #form select, .button')]
        .map((element) => element.getBoundingClientRect()).map((box) => [box.height, box.right])""")
    assert min(height for height, _ in sizes) >= 38 and max(right for _, right in sizes) <= 390


def test_an_error_names_the_file_and_leads_to_its_cure(browser, server, jpegs, tmp_path):
    plain = tmp_path / 'no exif.png'
    Image.open(jpegs[2]).save(plain)
    begin(browser, server)
    choose(browser, [*jpegs[:2], plain])
    by_keyboard(browser, '#merge', 'Enter')
    browser.wait("!document.getElementById('error').hidden")
    text = browser.run('document.getElementById("error-text").textContent')
    assert 'no exif.png (no exposure time)' in text
    assert browser.run('document.activeElement.id') == 'error'
    browser.run('document.querySelectorAll("#cures button")[1].click()')
    assert browser.run('document.activeElement.id') == 'estimate'
    browser.press(' ')
    by_keyboard(browser, '#merge', 'Enter')
    browser.wait("!document.getElementById('result').hidden")
    assert '(pixels)' in browser.run('document.getElementById("report-text").textContent')
    assert browser.problems == []


def test_a_failure_is_shown_after_the_page_was_loaded_anew(browser, server, jpegs, tmp_path):
    cut = tmp_path / 'cut.jpg'
    cut.write_bytes(jpegs[0].read_bytes()[:500])
    begin(browser, server)
    job = server.start({path.name: path.read_bytes() for path in (*jpegs[:2], cut)})
    assert server.wait(job)['state'] == 'failed'
    browser.run(f"sessionStorage.setItem('afunet', JSON.stringify({{ job: '{job}', stem: 'x' }}))")
    visit(browser, server)
    browser.wait("!document.getElementById('error').hidden")
    assert 'cut.jpg: ' in browser.run('document.getElementById("error-text").textContent')
    visit(browser, server)
    assert browser.run("document.getElementById('error').hidden")
    browser.run("sessionStorage.setItem('afunet', JSON.stringify({ job: 'no-such-job', stem: 'x' }))")
    visit(browser, server)
    browser.wait("sessionStorage.getItem('afunet') === null")
    browser.wait("document.getElementById('progress').hidden")
    assert browser.run("document.getElementById('error').hidden")
    browser.problems.clear()  # the browser's own line about the job that is not there


def test_a_refusal_of_the_server_is_shown(browser, server, jpegs):
    begin(browser, server)
    choose(browser, jpegs)
    browser.run("{ const field = document.querySelector('#photos input'); field.value = '1/0'; "
                "field.dispatchEvent(new Event('input')); }")  # fmt: skip
    by_keyboard(browser, '#merge', 'Enter')
    browser.wait("!document.getElementById('error').hidden")
    text = browser.run('document.getElementById("error").textContent')
    assert 'no exposure was given for b <i>2.jpg, c 3.jpg' in text
    assert all('status of 422' in problem for problem in browser.problems)  # the browser's own line
    browser.problems.clear()
