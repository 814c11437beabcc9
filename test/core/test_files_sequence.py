"""Sequences on disk: folders and videos, stamps, the files of each frame, and camera poses."""

import json

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from sparc_core.files.sequence import (
    DEPTH_SUFFIXES,
    FrameFiles,
    ImageSequence,
    SequenceDetections,
    VideoFrame,
    is_sequence,
    stamp_of_name,
)
from sparc_core.files.trajectory import read_trajectory


def picture(value, size=(48, 64)):
    return np.full((*size, 3), value, np.uint8)


def folder_of(path, names):
    path.mkdir()
    for i, name in enumerate(names):
        cv2.imwrite(str(path / name), picture(10 * i))
    return path


def frame(name="000001", stamp_s=0.0):
    return VideoFrame(name, stamp_s, picture(0))


def test_a_folder_gives_its_images_in_the_order_of_their_names(tmp_path):
    folder = folder_of(tmp_path / "rgb", ["b.png", "a.jpg", "c.png"])
    (folder / "notes.txt").write_text("not an image")
    images = ImageSequence(folder, fps=10)
    assert len(images) == 3
    assert [(f.name, f.stamp_s) for f in images] == [("a", 0.0), ("b", 0.1), ("c", 0.2)]
    assert [int(f.image_rgb[0, 0, 0]) for f in images] == [10, 0, 20]
    assert [f.name for f in ImageSequence(folder, every=2)] == ["a", "c"]
    assert len(ImageSequence(folder, every=2)) == 2


def test_names_that_are_stamps_are_the_time(tmp_path):
    folder = folder_of(tmp_path / "rgb", ["1305031102.175304.png", "1305031102.211214.png"])
    assert [f.stamp_s for f in ImageSequence(folder)] == [1305031102.175304, 1305031102.211214]
    assert stamp_of_name("000010") is None and stamp_of_name("a.5") is None and stamp_of_name("3.") is None


def test_a_video_gives_numbered_frames_with_their_times(tmp_path):
    path = tmp_path / "v.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10.0, (64, 48))
    assert writer.isOpened()
    for i in range(5):
        writer.write(picture((0, 0, 50 * i)))
    writer.release()
    images = ImageSequence(path)
    frames = list(images)
    assert len(images) == 5 and [f.name for f in frames] == [f"{i:06d}" for i in range(5)]
    np.testing.assert_allclose([f.stamp_s for f in frames], np.arange(5) / 10, atol=1e-3)
    assert frames[4].image_rgb[0, 0, 0] > 150 > 50 > frames[4].image_rgb[0, 0, 2]  # RGB: red grows
    thinned = list(ImageSequence(path, every=2))
    assert [f.name for f in thinned] == ["000000", "000002", "000004"]
    np.testing.assert_allclose([f.stamp_s for f in ImageSequence(path, fps=5)], np.arange(5) / 5)


def test_what_is_a_sequence(tmp_path):
    assert is_sequence(tmp_path) and is_sequence(tmp_path / "x.MP4") and not is_sequence(tmp_path / "x.png")


def test_sequences_that_cannot_be_read_are_named(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty: expected a folder with images"):
        ImageSequence(tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match=r"gone.mp4: no such file"):
        ImageSequence(tmp_path / "gone.mp4")
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(ValueError, match=r"text.mp4: expected a folder of images or a video"):
        ImageSequence(tmp_path / "text.mp4")
    folder = folder_of(tmp_path / "rgb", ["a.png"])
    for options, words in (({"every": 0}, "every"), ({"fps": -1.0}, "fps")):
        with pytest.raises(ValueError, match=words):
            ImageSequence(folder, **options)


def test_files_belong_to_frames_by_name_or_by_the_nearest_stamp(tmp_path):
    folder = folder_of(tmp_path / "depth", ["000001.png", "000002.png"])
    files = FrameFiles(folder, DEPTH_SUFFIXES, "depth images")
    assert files.of(frame("000002")).name == "000002.png"
    with pytest.raises(ValueError, match="depth: expected depth images for frame 000003, got none"):
        files.of(frame("000003"))
    stamped = folder_of(tmp_path / "stamped", ["10.000.png", "10.030.png"])
    files = FrameFiles(stamped, DEPTH_SUFFIXES, "depth images")
    assert files.of(frame("10.018", 10.018)).name == "10.030.png"
    with pytest.raises(ValueError, match=r"frame 10.060"):
        files.of(frame("10.060", 10.060))
    with pytest.raises(ValueError, match="expected a folder of depth images"):
        FrameFiles(tmp_path / "gone", DEPTH_SUFFIXES, "depth images")
    with pytest.raises(ValueError, match="got none in it"):
        FrameFiles(stamped, (".npy",), "depth images")


def test_detections_from_a_folder_or_from_lines(tmp_path):
    entry = {"box_xyxy": [1, 2, 30, 40], "category": "chair"}
    (tmp_path / "dets").mkdir()
    (tmp_path / "dets" / "000001.json").write_text(json.dumps([entry]))
    (tmp_path / "dets.jsonl").write_text(json.dumps({"frame": "000001", "detections": [entry]}) + "\n\n")
    for name in ("dets", "dets.jsonl"):
        (found,) = SequenceDetections(tmp_path / name).of(frame())
        assert found.box_xyxy == (1, 2, 30, 40) and found.category == "chair"
    assert SequenceDetections(tmp_path / "dets.jsonl").of(frame("000002")) == ()
    with pytest.raises(ValueError, match="frame 000002"):
        SequenceDetections(tmp_path / "dets").of(frame("000002"))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", r"dets.jsonl: line 2: expected JSON"),
        ("[]", r"line 2: expected an object"),
        ('{"frame": "a", "detections": []}', r"line 2: frame 'a' was in an earlier line"),
        ('{"frame": "b", "boxes": []}', r"line 2.*boxes"),
        ('{"frame": "b", "detections": [{"category": "chair"}]}', r"line 2: detection 0.*box_xyxy"),
    ],
)
def test_wrong_lines_are_named(tmp_path, line, words):
    (tmp_path / "dets.jsonl").write_text('{"frame": "a", "detections": []}\n' + line + "\n")
    with pytest.raises(ValueError, match=words):
        SequenceDetections(tmp_path / "dets.jsonl")


def test_other_files_are_no_detections_of_a_sequence(tmp_path):
    (tmp_path / "d.json").write_text("[]")
    with pytest.raises(ValueError, match=r"d.json: expected a folder with one DETS.json a frame"):
        SequenceDetections(tmp_path / "d.json")


# camera poses


def test_a_tum_trajectory_is_interpolated_between_its_stamps(tmp_path):
    quarter = Rotation.from_euler("y", 90, degrees=True).as_quat()
    lines = [
        "# stamp tx ty tz qx qy qz qw",
        "10.0 0 0 0 0 0 0 1",
        f"10.4 4 0 0 {' '.join(map(str, quarter))}",
    ]
    (tmp_path / "t.txt").write_text("\n".join(lines))
    trajectory = read_trajectory(tmp_path / "t.txt")
    T = trajectory.at("any", 10.1)
    np.testing.assert_allclose(T[:3, 3], (1, 0, 0))
    np.testing.assert_allclose(
        T[:3, :3], Rotation.from_euler("y", 22.5, degrees=True).as_matrix(), atol=1e-12
    )
    np.testing.assert_allclose(trajectory.at("any", 10.4)[:3, :3], Rotation.from_quat(quarter).as_matrix())
    np.testing.assert_allclose(trajectory.at("any", 9.99), np.eye(4))
    assert trajectory.at("any", 9.9) is None and trajectory.at("any", 10.5) is None


def test_a_gap_in_a_trajectory_is_none(tmp_path):
    (tmp_path / "t.txt").write_text("0 0 0 0 0 0 0 1\n2 4 0 0 0 0 0 1\n")
    trajectory = read_trajectory(tmp_path / "t.txt")
    assert trajectory.at("any", 1.0) is None and trajectory.at("any", 1.99) is not None


def test_poses_by_name(tmp_path):
    T = np.eye(4)
    T[:3, 3] = (1, 2, 3)
    (tmp_path / "p.json").write_text(json.dumps({"000001": T.tolist()}))
    trajectory = read_trajectory(tmp_path / "p.json")
    np.testing.assert_array_equal(trajectory.at("000001", 5.0), T)
    assert trajectory.at("000002", 5.0) is None


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("t.txt", "0 0 0 0 0 0 1", r"t.txt: line 1: expected 'stamp tx ty tz qx qy qz qw'"),
        ("t.txt", "0 0 0 0 0 0 0 0", "line 1"),
        ("t.txt", "# nothing", "got none"),
        ("t.txt", "1 0 0 0 0 0 0 1\n1 0 0 0 0 0 0 1", "1.0 twice"),
        ("p.json", '{"a": [[1, 0], [0, 1]]}', r"p.json: field 'a'"),
        ("p.json", json.dumps({"a": (2 * np.eye(4)).tolist()}), "field 'a': expected a rotation"),
    ],
)
def test_wrong_poses_are_named(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=words):
        read_trajectory(tmp_path / name)


def test_a_missing_or_binary_trajectory_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="gone"):
        read_trajectory(tmp_path / "gone.txt")
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(ValueError, match="binary"):
        read_trajectory(tmp_path / "b.txt")
