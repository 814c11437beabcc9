"""Objects with the fields of ROS messages, so that conversions are tested where there is no ROS."""

from types import SimpleNamespace

import numpy as np


def image(array, encoding, *, step=None, big_endian=False, data=None):
    """An Image of (H, W) or (H, W, C) values; `step` pads the rows with 0xAB."""
    array = np.asarray(array)
    if big_endian:
        array = array.astype(array.dtype.newbyteorder(">"))
    height, width = array.shape[:2]
    rows = np.frombuffer(array.tobytes(), np.uint8).reshape(height, -1)
    if step:
        padding = np.full((height, step - rows.shape[1]), 0xAB, np.uint8)
        rows = np.concatenate((rows, padding), axis=1)
    return SimpleNamespace(
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=int(big_endian),
        step=rows.shape[1],
        data=rows.tobytes() if data is None else data,
    )


def camera_info(**changes):
    """A CameraInfo of a 640 x 480 camera without distortion."""
    fields = {
        "width": 640,
        "height": 480,
        "k": [500.0, 0, 320.0, 0, 510.0, 240.0, 0, 0, 1],
        "p": [450.0, 0, 310.0, 0, 0, 460.0, 230.0, 0, 0, 0, 1, 0],
        "d": [],
        "distortion_model": "plumb_bob",
        "binning_x": 0,
        "binning_y": 0,
        "roi": SimpleNamespace(x_offset=0, y_offset=0, width=0, height=0),
    }
    return SimpleNamespace(**(fields | changes))


def detection(box_xyxy, *classes, theta=0.0, detection_id=""):
    """A Detection2D; classes: (class id, score) pairs."""
    x0, y0, x1, y1 = box_xyxy
    centre = SimpleNamespace(position=SimpleNamespace(x=(x0 + x1) / 2, y=(y0 + y1) / 2), theta=theta)
    results = [
        SimpleNamespace(hypothesis=SimpleNamespace(class_id=class_id, score=score))
        for class_id, score in classes
    ]
    return SimpleNamespace(
        bbox=SimpleNamespace(center=centre, size_x=x1 - x0, size_y=y1 - y0), results=results, id=detection_id
    )


def detections(*entries):
    """A Detection2DArray."""
    return SimpleNamespace(detections=list(entries))
