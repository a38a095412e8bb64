"""Evaluation: through the files on disk to the release's figures; padding, baselines, results."""

import base64
import csv
import dataclasses
import json
import shutil
import types

import cv2
import golden_weights
import numpy as np
import pytest
import small

from afunet_jax import baselines, checkpoints, evaluation, hdr, image_io, reports, torch_weights
from afunet_jax.data.layouts import get_layout
from afunet_jax.data.scenes import Scene, find_scenes, read_scene
from afunet_jax.errors import ConfigError, DataError, WeightsError
from afunet_jax.metrics import registry
from afunet_jax.models import afunet
from afunet_jax.photos import align

METHODS = 5  # the network and four baselines


def scene_of(height, width, seed=0, label=True):
    rng = np.random.default_rng(seed)
    radiance = rng.random((height, width, 3), np.float32)
    evs = np.float32([0, 2, 4])
    ldrs = np.stack([hdr.from_radiance(radiance, t) for t in hdr.exposure_time(evs)])
    return Scene('noise', np.round(ldrs * 65535).astype(np.uint16), evs, radiance if label else None)


class Middle:
    """Stands for a network: returns the middle exposure's radiance channels, and remembers what it saw."""

    window_size, chunk_windows = 8, 0

    def __init__(self):
        self.shapes = []

    def apply(self, variables, x):
        self.shapes.append(x.shape)
        return x[..., 6:9]


def test_a_scene_on_disk_becomes_the_release_s_output_and_figures(golden, tmp_path):
    model = afunet.AFUNet()
    params = torch_weights.from_state_dict(golden_weights.golden_parameters(4))
    files = small_layout(golden)
    network = evaluation.Network(model, params, pad_to=8)  # the golden output was made without padding
    rows = evaluation.evaluate({'AFUNet': network}, [read_scene(files)])
    expected = np.load(golden / 'scene_output.npz')
    image = network(read_scene(files)).image
    np.testing.assert_allclose(image, np.moveaxis(expected['output'], 0, -1), rtol=0, atol=2e-6)
    for key, tolerance in (('psnr_l', 1e-4), ('psnr_mu', 1e-4), ('ssim_l', 1e-6), ('ssim_mu', 1e-6)):
        np.testing.assert_allclose(rows[0][key], expected[key], rtol=0, atol=tolerance, err_msg=key)


def small_layout(golden):
    """The golden scene as a test set of Kalantari's layout: `scene/` stands for `Test`."""
    layout = get_layout('kalantari')
    layout = types.SimpleNamespace(**{**vars(layout), 'folders': lambda split: (('scene',),)})
    return find_scenes(golden, layout, 'test')[0]


@pytest.mark.parametrize(
    ('size', 'pad_to', 'expected'),
    [((100, 130), 128, (128, 256)), ((128, 128), 128, (128, 128)), ((65, 200), 128, (128, 256)), ((9, 12), 8, (16, 16))],
)
def test_images_are_padded_to_multiples_and_cropped_back(size, pad_to, expected):
    model = Middle()
    scene = scene_of(*size)
    merged = evaluation.Network(model, {}, pad_to)(scene)
    assert model.shapes == [(1, *expected, 18)]
    np.testing.assert_array_equal(merged.image, baselines.middle_exposure(scene))
    assert merged.seconds >= 0


def test_padding_is_by_reflection_at_the_bottom_and_right():
    scene = scene_of(12, 13)
    network = evaluation.Network(Middle(), {}, 8)
    seen = []
    network.merge = lambda x: seen.append(x) or x[..., 6:9]
    network(scene)
    x = hdr.network_input(hdr.decode_ldr(scene.ldrs), scene.evs)
    padded = cv2.copyMakeBorder(x[..., :4], 0, 4, 0, 3, cv2.BORDER_REFLECT_101)
    np.testing.assert_array_equal(seen[0][0, ..., :4], padded)


def test_frames_are_aligned_for_the_network_alone():
    rng = np.random.default_rng(2)
    radiance = np.exp2(40 * cv2.GaussianBlur(rng.random((80, 112, 3)).astype(np.float32), (0, 0), 3) - 24)
    shots = [radiance[8:72, x:x + 96] * 2.0**ev for x, ev in ((11, 0), (8, 2), (6, 4))]
    ldrs = np.stack([np.rint(65535 * np.clip(shot, 0, 1) ** (1 / 2.2)).astype(np.uint16) for shot in shots])
    shaken = dataclasses.replace(scene_of(64, 96), ldrs=ldrs)
    seen = []

    def merged_by(method, scene):
        network = evaluation.Network(Middle(), {}, 8, align=method)
        network.merge = lambda x: seen.append(x) or x[..., 6:9]
        network(scene)
        return seen.pop()

    moved, found = align.align(ldrs, shaken.evs, 'translation')
    assert found.shifts == (3, 0, 2)
    still = dataclasses.replace(shaken, ldrs=moved)
    np.testing.assert_array_equal(merged_by('translation', shaken), merged_by('off', still))
    assert (merged_by('off', shaken) != merged_by('off', still)).any()
    np.testing.assert_array_equal(shaken.ldrs, ldrs)


def test_a_size_is_compiled_once():
    model = Middle()
    network = evaluation.Network(model, {}, 8)
    for _ in range(3):
        network(scene_of(16, 24))
    network(scene_of(15, 20))
    assert len(model.shapes) == 1
    network(scene_of(16, 32))
    assert len(model.shapes) == 2 and network.compile_seconds > 0


def test_small_images_are_an_error_or_padded_to_the_window():
    scene = scene_of(64, 200)
    with pytest.raises(DataError, match='64x200.*multiples of 128.*pad_to_window'):
        evaluation.Network(Middle(), {}, 128)(scene)
    model = Middle()
    evaluation.Network(model, {}, 128, 'pad_to_window')(scene)
    assert model.shapes == [(1, 64, 200, 18)]
    with pytest.raises(DataError, match='multiples of 8'):
        evaluation.Network(model, {}, 128, 'pad_to_window')(scene_of(4, 200))


@pytest.mark.parametrize(('pad_to', 'small_images'), [(100, 'error'), (0, 'error'), (128, 'crop')])
def test_settings_that_make_no_sense_are_refused(pad_to, small_images):
    with pytest.raises(ConfigError):
        evaluation.Network(Middle(), {}, pad_to, small_images)


def test_another_alignment_is_refused():
    with pytest.raises(ConfigError, match="eval.align is one of off, translation, homography, flow, not 'on'"):
        evaluation.Network(Middle(), {}, 8, align='on')


def test_outputs_that_are_not_finite_are_refused():
    class Broken(Middle):
        def apply(self, variables, x):
            return x[..., 6:9] / 0

    with pytest.raises(WeightsError, match='noise.*not finite'):
        evaluation.Network(Broken(), {}, 8)(scene_of(8, 8))


def test_a_perfect_prediction_scores_infinite_psnr_and_ssim_one():
    label = scene_of(16, 16).label
    scores = evaluation.score(label, label)
    assert scores['psnr_l'] == scores['psnr_mu'] == np.inf
    np.testing.assert_allclose([scores['ssim_l'], scores['ssim_mu']], 1)


# ---- whole evaluations -------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp('evaluation')
    return small.write_data_set(folder / 'data', train=0)


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp('weights') / 'weights.pth'
    torch_weights.write_pth(path, afunet.init_params(afunet.build(small.MODEL), 0))
    return path


def run(config, weights, out):
    return evaluation.run(afunet.build(config.model), config, str(weights), out)


def test_tables_and_pictures_are_written(data, weights, tmp_path, capsys):
    config = small.config(data, tmp_path)
    rows = run(config, weights, tmp_path / 'out')
    assert [(row['scene'], row['method']) for row in rows] == [
        (scene, method) for scene in ('001', '002') for method in ('AFUNet', *baselines.BASELINES)
    ]
    results = json.loads((tmp_path / 'out' / 'results.json').read_text())
    for key in evaluation.PSNR_AND_SSIM:
        mean = np.mean([row[key] for row in rows if row['method'] == 'AFUNet'])
        np.testing.assert_allclose(results['means']['AFUNet'][key], mean)
        pair = [row[key] for row in rows if row['method'] == 'AFUNet']
        np.testing.assert_allclose(results['deviations']['AFUNet'][key], abs(pair[0] - pair[1]) / np.sqrt(2))
    assert results['weights'] == str(weights) and results['eval']['pad_to'] == 8 and results['device']
    with open(tmp_path / 'out' / 'results.csv') as file:
        assert [row['scene'] for row in csv.DictReader(file)] == [row['scene'] for row in rows]
    printed = capsys.readouterr().out
    assert (tmp_path / 'out' / 'results.txt').read_text() in printed
    page = next((tmp_path / 'out').glob('*.html')).read_text()
    assert 'weighted merge' in page and '001' in page
    beside = (tmp_path / 'out' / 'published.txt').read_text()
    assert beside in printed and 'AFUNet' in beside and 'measured' in beside and 'published' in beside
    assert page.count('<tr class="measured">') == METHODS and 'href="#source-1"' in page
    with open(tmp_path / 'out' / 'published.csv') as file:
        measured = [row['method'] for row in csv.DictReader(file) if row['from'] == 'measured']
    assert measured == [f'{method} (2 of 15 scenes)' for method in results['means']]  # published means are of all
    assert all(0 < row['hdrvdp2_sctnet'] < 100 for row in rows)
    folder = tmp_path / 'out' / 'pictures' / '001'
    names = {'AFUNet', 'middle_exposure', 'weighted_merge', 'aligned_merge', 'MTB_and_Debevec'}
    assert {p.name for p in folder.iterdir()} == {f'{n}.{e}' for n in names for e in ('hdr', 'png')} | {'ground_truth.png'}
    overview = cv2.imread(str(folder.parent / 'overview.png'))
    assert overview.shape[1] >= (METHODS + 1) * reports.OVERVIEW_WIDTH and overview.std() > 10
    scene = read_scene(find_scenes(data, get_layout('kalantari'), 'test')[0])
    image = evaluation.Network(afunet.build(config.model), checkpoints.load_params(weights), 8)(scene).image
    np.testing.assert_allclose(image_io.read_hdr(folder / 'AFUNet.hdr'), image, rtol=0, atol=image.max() / 255)
    picture = cv2.imread(str(folder / 'AFUNet.png'))[..., ::-1]
    np.testing.assert_allclose(picture / 255, hdr.mu_law(image), atol=1 / 255)


def test_the_config_says_how_frames_are_aligned(data, weights, tmp_path, monkeypatch, capsys):
    asked = []

    def shown(scene, method):
        asked.append(method)
        return (scene, True) if method == 'off' else (dataclasses.replace(scene, ldrs=scene.ldrs[[1, 1, 1]]), False)

    monkeypatch.setattr(evaluation, 'aligning', types.SimpleNamespace(**{**vars(align), 'align_scene': shown}))
    config = small.config(data, 'unused')
    config.eval.update(pictures=False, report=False)
    plain = run(config, weights, tmp_path / 'plain')
    config.eval.align = 'homography'
    aligned = run(config, weights, tmp_path / 'aligned')
    scenes = len({row['scene'] for row in aligned})
    assert asked == ['off'] * scenes + ['homography'] * scenes
    for one, other in zip(plain, aligned, strict=True):
        assert (one['psnr_mu'] == other['psnr_mu']) == (one['method'] != evaluation.NETWORK)
    found = json.loads((tmp_path / 'aligned' / 'results.json').read_text())
    assert found['eval']['align'] == 'homography' and found['unmatched'] == sorted({row['scene'] for row in aligned})
    assert f'clipped or black: {", ".join(found["unmatched"])} (eval.align=homography)' in capsys.readouterr().err


def test_a_set_without_ground_truth_gives_pictures_and_times_only(weights, tmp_path):
    for i in range(2):
        small.write_scene(tmp_path / 'data' / 'Test' / f'{i}', label=False)
    config = small.config(tmp_path / 'data', tmp_path)
    config.data.layout = 'tursun'
    rows = run(config, weights, tmp_path / 'out')
    assert len(rows) == 2 * METHODS and all(row['psnr_mu'] is None and row['seconds'] >= 0 for row in rows)
    assert json.loads((tmp_path / 'out' / 'results.json').read_text())['means']['AFUNet']['psnr_mu'] is None
    assert not (tmp_path / 'out' / 'pictures' / '0' / 'ground_truth.png').exists()


def test_each_detection_map_is_computed_once_and_shown_under_its_preset(data, weights, tmp_path, monkeypatch):
    metrics, calls = ('psnr_mu', 'hdrvdp2_sctnet', 'hdrvdp2_safnet'), []
    for name in metrics[1:]:
        metric = registry.METRICS[name]

        def counted(prediction, label, function=metric.function):
            calls.append(function(prediction, label))
            return calls[-1]

        monkeypatch.setitem(registry.METRICS, name, dataclasses.replace(metric, function=counted))
    config = small.config(data, tmp_path)
    config.eval.update(metrics=metrics, baselines=True, pictures=False, scenes=1)
    rows = run(config, weights, tmp_path / 'out')
    assert [row[name] for row in rows for name in metrics[1:]] == [found.q for found in calls]
    assert len(calls) == 2 * METHODS
    (path,) = (tmp_path / 'out' / 'report_files').iterdir()
    layers = {entry['title']: entry for entry in json.loads(path.read_text().partition(',')[2][:-3])['layers']}
    for found, (row, preset) in zip(calls, ((row, preset) for row in rows for preset in ('sctnet', 'safnet'))):
        shown = layers[f'HDR-VDP-2 ({preset}), {row["method"]}']
        pixels = cv2.imdecode(np.frombuffer(base64.b64decode(shown['data']), np.uint8), cv2.IMREAD_GRAYSCALE)
        np.testing.assert_allclose(pixels / 255, found.p_map, rtol=0, atol=0.05)  # what a good JPEG changes


def test_parts_can_be_left_out(data, weights, tmp_path):
    config = small.config(data, tmp_path)
    config.eval.update(baselines=False, pictures=False, report=False, scenes=1)
    rows = run(config, weights, tmp_path / 'out')
    assert [row['method'] for row in rows] == ['AFUNet']
    assert not {'pictures', 'report.html'} & {path.name for path in (tmp_path / 'out').iterdir()}


@pytest.fixture(scope='module')
def evaluated(data, weights, tmp_path_factory):
    """The folder of an evaluation of both scenes, with everything but pictures of the report."""
    folder = tmp_path_factory.mktemp('evaluated')
    config = small.config(data, folder)
    config.eval.update(metrics=('psnr_mu',), report=False)
    run(config, weights, folder / 'out')
    (folder / 'out' / 'report.html').write_text('of an earlier evaluation')
    return folder / 'out'


def test_an_evaluation_that_stops_leaves_no_table_beside_pictures_that_are_not_its_own(data, weights, evaluated, tmp_path):
    out = shutil.copytree(evaluated, tmp_path / 'out')
    broken = shutil.copytree(data, tmp_path / 'data')
    (broken / 'Test' / 'Test-set' / '002' / '2.tif').write_bytes(b'II*')
    config = small.config(broken, tmp_path)
    config.eval.update(metrics=('psnr_mu',), report=False, pad_to=16)
    with pytest.raises(DataError, match='002'):
        run(config, weights, out)
    assert [path.name for path in out.iterdir()] == ['pictures']
    assert not (out / 'pictures' / 'overview.png').exists()


def test_one_that_never_begins_leaves_the_last_one_as_it_was(data, weights, evaluated, tmp_path):
    out = shutil.copytree(evaluated, tmp_path / 'out')
    config = small.config(tmp_path / 'nowhere', tmp_path)
    with pytest.raises(DataError):
        run(config, weights, out)
    assert {path.name for path in out.iterdir()} == {path.name for path in evaluated.iterdir()}


def test_other_data_in_the_same_folder_leave_nothing_of_the_first(weights, evaluated, tmp_path):
    out = shutil.copytree(evaluated, tmp_path / 'out')
    small.write_scene(tmp_path / 'data' / 'Test' / '001', label=False)
    config = small.config(tmp_path / 'data', tmp_path)
    config.data.layout = 'tursun'
    config.eval.update(report=False, metrics=('psnr_mu',))
    run(config, weights, out)
    names = {path.name for path in out.iterdir()}
    assert names == {'pictures', 'results.json', 'results.csv', 'results.txt'}
    assert not (out / 'pictures' / '001' / 'ground_truth.png').exists()


def test_an_output_folder_that_cannot_be_is_known_before_the_first_scene(data, weights, tmp_path):
    (tmp_path / 'out').write_text('a file')
    with pytest.raises(ConfigError, match='out: cannot be made'):
        run(small.config(data, tmp_path), weights, tmp_path / 'out')


def test_an_error_of_a_metric_names_scene_and_method():
    scene = dataclasses.replace(scene_of(16, 16), label=np.zeros((16, 16, 3), np.float32))
    black = {'black': evaluation.timed(lambda scene: np.zeros_like(scene.label))}
    with pytest.raises(DataError, match='scene noise, black: .*zero everywhere'):
        evaluation.evaluate(black, [scene], metrics=('hdrvdp2_sctnet',))


@pytest.mark.parametrize('most', [-1, -100])
def test_a_negative_number_of_scenes_is_refused(data, weights, tmp_path, most):
    config = small.config(data, tmp_path)
    config.eval.scenes = most
    with pytest.raises(ConfigError, match=f'eval.scenes.*{most}'):
        run(config, weights, tmp_path / 'out')


def test_names_that_are_no_utf8_stand_in_the_tables(tmp_path):
    row = {'scene': 'caf\udce9', 'method': 'm', 'psnr_mu': 1.0, 'seconds': 0.1}
    reports.write_results(tmp_path, [row], {})
    assert all('caf\\udce9' in (tmp_path / name).read_text() for name in reports.RESULTS)


def test_means_are_plain_means_over_scenes():
    rows = [{'method': 'a', 'psnr_l': p, 'psnr_mu': p, 'ssim_l': 1, 'ssim_mu': 1, 'seconds': 2} for p in (10.0, 30.0)]
    assert reports.means(rows)['a']['psnr_l'] == 20


def test_infinite_figures_are_written_as_strings(tmp_path):
    row = {'scene': 's', 'method': 'm', 'psnr_l': np.inf, 'psnr_mu': 1.0, 'ssim_l': 1.0, 'ssim_mu': 1.0, 'seconds': 0.1}
    reports.write_results(tmp_path, [row], {})
    assert json.loads((tmp_path / 'results.json').read_text())['scenes'][0]['psnr_l'] == 'inf'


def test_weights_that_do_not_fit_the_config_are_refused(data, weights, tmp_path):
    config = small.config(data, tmp_path)
    config.model.sfm_depth = 3
    with pytest.raises(WeightsError, match='sfm_depth is 2 in the weights, 3 in the config'):
        run(config, weights, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


def test_fewer_windows_are_computed_at_once_until_the_image_fits():
    model = afunet.build({**small.MODEL, 'chunk_windows': 0})
    params = afunet.init_params(model, 0)
    x = np.random.default_rng(0).random((1, 128, 128, 18), np.float32)
    whole = evaluation.Network(model, params, 8)
    image = whole.merge(x)
    needed = whole.compiled_sizes[0]['gb']
    limited = evaluation.Network(model, params, 8, memory_limit=needed * 0.8)
    np.testing.assert_allclose(limited.merge(x), image, rtol=0, atol=1e-6)
    (size,) = limited.compiled_sizes
    assert size['gb'] <= needed * 0.8 and size['chunk_windows'] in evaluation.FEWER_WINDOWS
    with pytest.raises(DataError, match='128x128.*memory_limit'):
        evaluation.Network(model, params, 8, memory_limit=needed * 0.01).merge(x)
    with pytest.raises(ConfigError, match='memory_limit'):
        evaluation.Network(model, params, 8, memory_limit=-1)


def test_where_no_memory_is_free_no_image_fits(monkeypatch):
    model = afunet.build(small.MODEL)
    network = evaluation.Network(model, afunet.init_params(model, 0), pad_to=8)
    monkeypatch.setattr(evaluation.parallel, 'free_memory', lambda: 0)
    with pytest.raises(DataError, match='0.00 GB are free or allowed'):
        network.merge(np.zeros((1, 16, 16, 18), np.float32))
    monkeypatch.setattr(evaluation.parallel, 'free_memory', lambda: None)  # not known
    assert network.merge(np.zeros((1, 16, 16, 18), np.float32)).shape == (1, 16, 16, 3)


def test_a_baseline_beyond_all_values_names_the_cures():
    rng = np.random.default_rng(0)
    ldrs = rng.integers(60_000, 65_536, (3, 16, 16, 3)).astype(np.uint16)
    scene = Scene('dark', ldrs, np.float32([-5, 0, 5]), rng.random((16, 16, 3), np.float32))
    with pytest.raises(DataError, match=r'scene dark, weighted merge: .*eval.baselines=False.*EV -5; data.subtract_min_ev'):
        evaluation.evaluate({'weighted merge': evaluation.timed(baselines.weighted_merge)}, [scene], metrics=('psnr_mu',))
