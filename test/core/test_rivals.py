"""Methods side by side: what each is given and what is counted, with methods whose answers are known."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from builders import furniture

from sparc_core.baselines.mask2cad import Mask2CadConfig, Mask2CadNet
from sparc_core.baselines.roca import RocaConfig, RocaNet
from sparc_core.cad.tensors import CadTensors
from sparc_core.config import to_dict
from sparc_core.evaluation import methods
from sparc_core.evaluation.contact_sheet import TILE_PX, choose_cases, draw_contact_sheet, hardness
from sparc_core.evaluation.methods import FileKind, MethodSpec, Setting, StartedAligner, read_method
from sparc_core.evaluation.papers import PAPER_ROWS, paper_row
from sparc_core.evaluation.picture_report import summarise_pictures
from sparc_core.evaluation.pictured_rooms import TRACKS, GivenInputs, PicturedRooms, give_inputs
from sparc_core.evaluation.pose_records import records_of
from sparc_core.evaluation.rgb_bench import RgbBenchConfig
from sparc_core.evaluation.rivals import COUNTS, RivalsRunner
from sparc_core.evaluation.rivals_report import expectations, markdown, summarise_rivals
from sparc_core.perception.interfaces import DepthPrediction
from sparc_core.perception.predictor_file import save_predictor
from sparc_core.perception.see import Perception, Seen
from sparc_core.pipeline import SHIPPED_RETRIEVAL, SHIPPED_WEIGHTS, AlignerConfig
from sparc_core.refine.model import save_weights
from sparc_core.retrieval.retriever import Retriever
from sparc_core.synth.scenes import SceneConfig
from sparc_core.types import AlignedObject, AlignmentResult, Detection
from sparc_core.weights_file import write_weights

LAYOUT = SceneConfig(objects=3, clutter=2, free_share=0.0, width_px=160, height_px=120)
CONFIG = RgbBenchConfig(images=2, layout=LAYOUT, tracks=("RGB-D, true boxes, right model", "RGB-D"))


@pytest.fixture(scope="module")
def library():
    return furniture()


@pytest.fixture(scope="module")
def pictures(library):
    return PicturedRooms(library, LAYOUT, CONFIG.seed, CONFIG.min_visible)


class TrueEyes:
    """Predictors that know the truth of the picture they are shown."""

    def __init__(self, pictures):
        self.pictures, self.shown = pictures, None

    def detect(self, image_rgb):
        self.shown = next(
            taken for taken in map(self.pictures.take, range(CONFIG.images))
            if np.array_equal(taken.picture.rgb, image_rgb)
        )  # fmt: skip
        return [Detection(o.box_xyxy, o.category, 0.9) for o in self.shown.objects]

    def predict(self, image_rgb, camera):
        return DepthPrediction(self.shown.picture.depth_m, self.shown.picture.normal_cam)


class KnownMethod:
    """Places the CAD model that every detection names at the true pose of the room's object nearest to the
    box, moved aside; notes what it was given."""

    def __init__(self, taken_of, aside_m=0.0, skip=False):
        self.taken_of, self.aside_m, self.skip, self.given = taken_of, aside_m, skip, []

    def align(
        self, image_rgb, camera, detections, depth_m=None, normals_cam=None, *,
        depth_predicted=False, hints=None,
    ):  # fmt: skip
        self.given.append((image_rgb, tuple(detections), depth_m, depth_predicted))
        room = self.taken_of().room
        objects = []
        for d, detection in enumerate(detections):
            if self.skip:
                break
            i = int(np.abs(room.boxes_xyxy.numpy() - detection.box_xyxy).sum(1).argmin())
            R, T, S = (getattr(room.truth, name)[i].double().numpy() for name in ("R", "T", "S"))
            objects.append(AlignedObject(
                d, detection.category, detection.model_id, detection.box_xyxy, R, T + [self.aside_m, 0, 0], S,
                0.8, "known",
            ))  # fmt: skip
        return AlignmentResult(camera, tuple(objects), (), {"total": 7.0})


@pytest.fixture(scope="module")
def runner(library, pictures):
    eyes = TrueEyes(pictures)
    methods = {
        "ROCA": KnownMethod(lambda: eyes.shown, aside_m=0.15),
        "Multi-SPARC (true)": KnownMethod(lambda: eyes.shown),
        "blind": KnownMethod(lambda: eyes.shown, skip=True),
    }
    retriever = Retriever.load(SHIPPED_RETRIEVAL, CadTensors.from_library(library, "cpu"))
    return RivalsRunner(CONFIG, Perception(eyes, eyes), library, methods, tuple(methods), retriever)


@pytest.fixture(scope="module")
def records(runner):
    found = {"objects": [], "predictions": [], "perception": []}
    for number in range(CONFIG.images):
        for kind, rows in json.loads(json.dumps(runner.run(number))).items():
            found[kind] += rows
    return found


def test_all_methods_are_given_the_very_same(runner, records):
    given = [method.given for method in runner.methods.values()]
    assert [len(g) for g in given] == [CONFIG.images * len(CONFIG.tracks)] * 3
    for first, *others in zip(*given, strict=True):
        assert len(first[1]) > 0
        assert all(d.model_id is not None for d in first[1])
        for other in others:
            np.testing.assert_array_equal(first[0], other[0])
            assert first[1] == other[1] and first[3] == other[3]
            np.testing.assert_array_equal(first[2], other[2])


def test_true_poses_are_right_a_shift_shows_and_skipping_loses_everything(runner, records):
    summary = summarise_rivals(records, CONFIG.tracks, runner.accurate, {})
    assert set(summary["perception_ms"]) == {"detector", "depth"}
    found = summary["tracks"]["RGB-D, true boxes, right model"]
    true, shifted, blind = (found[name]["all"] for name in ("Multi-SPARC (true)", "ROCA", "blind"))
    assert set(true["accuracy"].values()) == {100.0} and true["right_model"] == 100
    assert true["ap_mesh"]["0.3"] == {"AP50": 100.0, "AP": 100.0}
    assert list(shifted["accuracy"].values()) == [100.0, 0.0, 0.0]
    assert shifted["median"]["translation_cm"] == pytest.approx(15, abs=0.1)
    assert set(blind["accuracy"].values()) == {0.0} and blind["ap_mesh"]["0.7"]["AP"] == 0
    assert blind["median"]["translation_cm"] is None and found["blind"]["predictions"] == 0
    assert found["ROCA"]["reliability"][0]["mean_score"] == pytest.approx(0.8)


def test_clutter_that_is_detected_is_neither_right_nor_wrong(library, pictures):
    taken = next(
        t for t in map(pictures.take, range(40))
        if any(o.number not in t.room.slots.tolist() for o in t.objects) and len(t.room.slots) > 1
    )  # fmt: skip
    things = [Detection(o.box_xyxy, o.category, 0.9) for o in taken.objects]
    seen = Seen(
        (*things, Detection((0, 0, 9, 9), "bed", 0.6)), taken.picture.depth_m, taken.picture.normal_cam, True
    )
    given = give_inputs(TRACKS[0], taken, seen, library)
    is_clutter = [o.number not in taken.room.slots.tolist() for o in taken.objects]
    assert given.other.tolist() == [*is_clutter, False]
    models = [o.model_id for o in taken.objects] + [next(
        m.model_id for m in library.models if m.category == "bed"
    )]  # fmt: skip
    objects = tuple(
        AlignedObject(d, detection.category, models[d], detection.box_xyxy, np.eye(3), np.array([9.0, 9, 9]),
                      np.ones(3), 0.5, "")
        for d, detection in enumerate(given.detections)
    )  # fmt: skip
    result = AlignmentResult(taken.room.camera, objects, (), {"total": 1.0})
    cad = CadTensors.from_library(library)
    about, predictions = records_of({"image": 0}, taken.room, given, result, library, cad, 0.5)
    assert len(about) == len(taken.room.slots)
    assert len(predictions) == len(given.detections) - sum(is_clutter)
    assert predictions[-1] == {
        "image": 0, "category": "bed", "score": 0.5, "detection_score": 0.6, "right_for": [], "f1": [0, 0, 0]
    }  # fmt: skip


def test_a_record_holds_what_the_plots_and_pictures_need(library, pictures):
    taken = pictures.take(0)
    room = taken.room
    boxes = next(track for track in TRACKS if track.name == "RGB-D, true boxes, right model")
    given = give_inputs(boxes, taken, Seen((), None, None, False), library)
    assert isinstance(given, GivenInputs) and given.own.tolist() == list(range(len(room.slots)))
    truth = [getattr(room.truth, n)[0].double().numpy() for n in ("R", "T", "S")]
    one = AlignedObject(0, given.detections[0].category, given.detections[0].model_id, (0, 0, 1, 1),
                        truth[0], truth[1] + [0.0, 0.0, 0.3], truth[2] * 1.1, 0.25, "")  # fmt: skip
    result = AlignmentResult(room.camera, (one,), (), {"total": 1.0})
    objects, predictions = records_of(
        {"track": "t"}, room, given, result, library, CadTensors.from_library(library), 0.5
    )
    first = objects[0]
    assert first["translation_m"] == pytest.approx(0.3, abs=1e-5) and first["rotation_deg"] < 0.1
    assert first["scale"] == pytest.approx(0.1, abs=1e-5) and (first["score"], first["track"]) == (0.25, "t")
    assert first["distance_m"] == pytest.approx(float(np.linalg.norm(truth[1])), abs=1e-5)
    assert first["seen"] == pytest.approx(float(room.seen[0])) and first["right_model"]
    np.testing.assert_allclose(first["truth"]["T_m"], truth[1], atol=1e-4)
    np.testing.assert_allclose(first["aligned"]["T_m"], truth[1] + [0, 0, 0.3], atol=1e-4)
    assert 0 < first["f1"][0] < first["f1"][2] or first["f1"][2] == 0
    assert predictions[0]["right_for"] == [] and predictions[0]["f1"] == first["f1"]
    for other in objects[1:]:
        assert other["translation_m"] == np.inf and other["aligned"] is None and other["f1"] == [0, 0, 0]
        assert other["detected"] and not other["right_model"]


def test_the_contact_sheet_shows_the_best_the_median_and_the_worst(library, pictures, records):
    rows = [r for r in records["objects"] if r["method"] == "Multi-SPARC (true)" and r["aligned"]]
    rows = [dict(rows[i % len(rows)], well_visible=True, translation_m=0.01 * i) for i in range(9)]
    hidden = dict(rows[0], well_visible=False, translation_m=5.0)
    lost = dict(rows[0], aligned=None, translation_m=np.inf)
    cases = choose_cases([*reversed(rows), hidden, lost], 2)
    shifts = {kind: [round(100 * r["translation_m"]) for r in found] for kind, found in cases.items()}
    assert shifts == {"best": [0, 1], "median": [3, 4], "worst": [8, 7]}
    assert hardness({"translation_m": 0.1, "rotation_deg": 30.0, "scale": 0.1}) == pytest.approx(1.5)

    def picture_of(number):
        taken = pictures.take(number)
        return taken.picture.rgb, taken.room.camera

    sheet = draw_contact_sheet(cases, picture_of, library)
    assert sheet.dtype == np.uint8 and sheet.shape[1] == 2 * (TILE_PX[0] + 6) and sheet.shape[0] % 3 == 0
    # what is aligned truly looks like the truth below it: only text, label and interpolation differ
    half = (sheet.shape[0] // 3 - 6) // 2
    above, below = sheet[3 + 40 : 3 + half, 3:303], sheet[3 + half + 40 : 3 + 2 * half, 3:303]
    assert (np.abs(above.astype(int) - below).max(-1) > 30).mean() < 0.02
    assert sheet.std() > 10
    with pytest.raises(ValueError, match="no aligned, well visible object"):
        draw_contact_sheet(choose_cases([hidden, lost]), picture_of, library)


def test_the_tables_have_the_papers_rows_and_ratios(runner, records):
    times = {"SPARC": 1000.0, "ROCA": 50.0, "Multi-SPARC (true)": 300.0, "Multi-SPARC sparse": 100.0}
    latency = {n: {c: {"median_ms": t} for c in COUNTS} for n, t in times.items()}
    summary = summarise_rivals(records, CONFIG.tracks, runner.accurate, latency)
    table = markdown(summary)
    assert table.count("| ROCA | 100.0 | 0.0 |") == 2 and "| 25.0, 18.4 | 18.4, 10.8 | 53 |" in table
    assert "| SPARC | – | – |" in table and "| 31.8, 24.9 | 17.4, 9.8 | 1925 |" in table
    assert "| Multi-SPARC sparse |" in table and "| 34.8, 26.7 | – | 480 |" in table
    lines = expectations(summary)
    assert lines[0] == (
        "RGB-D, true boxes, right model: Multi-SPARC (true) has 1.00 times the accuracy of ROCA (paper: 1.61)"
    )
    assert lines[-1] == "Multi-SPARC (true) takes 0.30 times as long as SPARC for five objects (paper: 0.45)"
    assert paper_row("blind") is None and paper_row("ROCA start + Multi-SPARC") is None
    assert paper_row("Multi-SPARC (shipped)") is PAPER_ROWS["Multi-SPARC"]


def test_latency_is_of_the_number_of_objects_asked_for(runner):
    method = runner.methods["ROCA"]
    before = len(method.given)
    figures = runner.time("ROCA", repeats=2)
    assert list(figures) == [1, 5, 10] and all(f["median_ms"] > 0 for f in figures.values())
    calls = method.given[before:]
    assert [len(call[1]) for call in calls] == [1] * 3 + [5] * 3 + [10] * 3
    assert all(call[3] for call in calls) and all(d.model_id for call in calls for d in call[1])


def test_a_method_is_read_from_its_text():
    spec = MethodSpec.parse("ROCA + ours=roca.safetensors+shipped,depth_fit=false,finalists=3")
    assert spec == MethodSpec(
        "ROCA + ours", ("roca.safetensors", "shipped"), (("depth_fit", False), ("finalists", 3))
    )
    assert MethodSpec.parse("a=b.yaml").untrained and not spec.untrained
    assert MethodSpec.parse("shipped,finalists=1") == MethodSpec(
        "shipped,finalists=1", ("shipped",), (("finalists", 1),)
    )
    assert MethodSpec.parse("roca.safetensors+search+shipped") == MethodSpec(
        "roca.safetensors+search+shipped", ("roca.safetensors", "shipped"), search_beside=True
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("=shipped", "a method's name is empty"),
        ("", "a method's name is empty"),
        ("a=", "method a: a file is missing"),
        ("a=b+", "method a: a file is missing"),
        ("a=b+search+", "method a: a file is missing"),
        ("a=b+c+d", r"method a: more than two files, \('b', 'c', 'd'\)"),
        ("a=b,c", "method a: expected OPTION=VALUE behind the comma, got 'c'"),
        ("a=b,=3", "method a: expected OPTION=VALUE behind the comma, got '=3'"),
        ("a=b,c=[", r"method a: 'c=\[' has no readable value"),
    ],
)
def test_what_is_wrong_with_a_methods_text_is_named(text, message):
    with pytest.raises(ValueError, match=message):
        MethodSpec.parse(text)


def test_a_file_is_taken_as_it_is_with_a_whole_configuration(library, tmp_path):
    odd = tmp_path / "a=b,c+d.safetensors"
    odd.write_bytes(SHIPPED_WEIGHTS.read_bytes())
    config = AlignerConfig(n_bbox=0, finalists=1)
    aligner = MethodSpec.of_file(odd, config).with_options(scale_mode="fixed").load(Setting(library))
    assert aligner.config == dataclasses.replace(config, scale_mode="fixed")


def test_the_shipped_network_and_one_of_the_papers_layout_get_their_own_options(library, tmp_path):
    shipped = read_method("shipped", Setting(library), {"depth_fit": False})
    assert (shipped.config.n_bbox, shipped.config.depth_fit, shipped.config.second_looks) == (96, False, 2)
    config = tmp_path / "small.yaml"
    config.write_text(
        "model:\n  inputs: {layout: paper, n_bbox: 30, n_cad: 20}\n  parametrisation: additive\n  n_mul: 1\n"
        "  network: {token_channels: 13, context_channels: 0, embed_tokens: false, latents: 4}\n"
    )
    random = read_method(str(config), Setting(library), {})
    inputs = random.model_config.inputs
    assert (inputs.n_bbox, inputs.n_cad) == (30, 20) and random.model_config.n_mul == 1
    assert not random.config.depth_fit and random.config.second_looks == 0
    save_weights(tmp_path / "same.safetensors", random.network.state_dict(), random.model_config)
    again = read_method(str(tmp_path / "same.safetensors"), Setting(library), {})
    assert to_dict(again.model_config) == to_dict(random.model_config) and again.config == random.config


def test_files_and_options_that_fit_no_method_are_named(library, tmp_path, monkeypatch):
    other = tmp_path / "other.safetensors"
    write_weights(other, {"w": torch.zeros(2)}, {"kind": "OtherConfig"})
    with pytest.raises(
        ValueError, match=r"other.safetensors: no method for the kind 'OtherConfig'; there are"
    ):
        read_method(str(other), Setting(library), {})
    kind = FileKind("weights of another", lambda path, setting, options: ("the method", options))
    monkeypatch.setitem(methods.KINDS, "OtherConfig", kind)
    assert read_method(str(other), Setting(library), {"a": 1}) == ("the method", {"a": 1})
    with pytest.raises(ValueError, match="only an aligner refines poses"):
        MethodSpec("x", ("shipped", str(other))).load(Setting(library))
    with pytest.raises(ValueError, match="method x: shipped is no single-shot method to start from"):
        MethodSpec("x", ("shipped", "shipped")).load(Setting(library))
    with pytest.raises(ValueError, match=r"options of .*.safetensors: unknown keys \['looks'\]"):
        read_method("shipped", Setting(library), {"looks": 3})
    with pytest.raises(ValueError, match="device must be auto, cpu, cuda or cuda:N, got 'tpu'"):
        RivalsRunner.load(CONFIG, None, (MethodSpec("x", ("a",)),), None, "tpu")
    with pytest.raises(ValueError, match=r"names of their own, got \['x'\]"):
        RivalsRunner.load(CONFIG, None, (MethodSpec("x", ("a",)), MethodSpec("x", ("b",))), None, "cpu")


def roca():
    """A small ROCA with random weights."""
    config = RocaConfig(code=16, hidden=16)
    return RocaNet(config), config


def mask2cad():
    """A small Mask2CAD with random weights that knows one rotation of every category."""
    config = Mask2CadConfig(width=16, embedding=16, bins=2, view_px=24, view_width=8)
    network = Mask2CadNet(config)
    network.bins[:, 0, 0] = 1
    return network, config


@pytest.mark.parametrize("build", [roca, mask2cad])
def test_a_baseline_is_read_from_its_file_and_gives_its_poses_with_the_detections_scores(
    library, pictures, tmp_path, build
):
    torch.manual_seed(0)
    network, config = build()
    save_predictor(tmp_path / "w.safetensors", network.state_dict(), config)
    taken = pictures.take(0)
    boxes = next(track for track in TRACKS if track.name == "RGB-D, true boxes, right model")
    given = give_inputs(boxes, taken, Seen((), None, None, False), library)
    detections = [dataclasses.replace(d, score=0.1 * (i + 1)) for i, d in enumerate(given.detections)]
    method = read_method(str(tmp_path / "w.safetensors"), Setting(library), {})
    result = method.align(taken.picture.rgb, taken.room.camera, detections, given.depth_m)
    assert len(result.objects) > 0 and {o.start for o in result.objects} == {build.__name__}
    for found in result.objects:
        assert found.score == detections[found.detection].score
        assert found.model_id == detections[found.detection].model_id
    with pytest.raises(ValueError, match=r"options of .*w.safetensors: unknown keys \['depth_fit'\]"):
        read_method(str(tmp_path / "w.safetensors"), Setting(library), {"depth_fit": True})
    spec = MethodSpec.parse(f"{tmp_path / 'w.safetensors'}+shipped,scale_mode=fixed")
    assert spec.load(Setting(library)).first.config.scale_mode == "fixed"  # as that of what refines
    refined = MethodSpec("x", (str(tmp_path / "w.safetensors"), "shipped")).load(Setting(library))
    assert isinstance(refined, StartedAligner) and not refined.search_beside
    again = refined.align(taken.picture.rgb, taken.room.camera, detections, given.depth_m)
    started = {found.detection for found in result.objects}
    assert all((o.start == "track") == (o.detection in started) for o in again.objects)


def test_figures_of_pictures_by_hand():
    def about(category, error, **changes):
        record = {
            "image": 0, "align_ms": 7.0, "category": category, "detected": True, "right_model": True,
            "well_visible": True,
            "translation_m": error, "rotation_deg": 1.0, "scale": 0.01, "distance_m": 2.0, "seen": 0.9,
            "score": 0.9, "detection_score": 0.9, "f1": [1.0, 1.0, 1.0],
        }  # fmt: skip
        return record | changes

    def predicted(category, right_for, score):
        return {"image": 0, "category": category, "score": score, "detection_score": 0.5,
                "right_for": right_for, "f1": [1.0 if right_for else 0.0] * 3}  # fmt: skip

    objects = [
        about("chair", 0.02), about("chair", 0.08),
        about("table", np.inf, rotation_deg=180.0, scale=np.inf, detected=False, f1=[0.0] * 3),
    ]  # fmt: skip
    found = summarise_pictures(
        "m",
        objects,
        [predicted("chair", [0], 0.9), predicted("chair", [1], 0.8), predicted("chair", [], 0.95)],
    )
    everything = found["all"]
    assert [round(v, 1) for v in everything["accuracy"].values()] == [66.7, 66.7, 33.3]
    assert [round(v, 1) for v in everything["class_accuracy"].values()] == [50, 50, 25]
    assert everything["median"] == {"translation_cm": 5.0, "rotation_deg": 1.0, "scale_percent": 1.0}
    assert everything["detected"] == pytest.approx(66.67)
    # wrong, right, right of two chairs: (2/3 + 2/3) / 2; no table
    assert everything["ap_mesh"]["0.5"]["AP50"] == pytest.approx(100 * (2 / 3) / 2, abs=0.01)
    assert [b["objects"] for b in found["reliability"]] == [1, 2]
