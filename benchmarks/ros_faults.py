"""Faults of a running system: each is made, lasts a while, and ends with good input again.

A fault returns the words that the node's log and diagnostics must hold; `Scene.during` publishes meanwhile.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import trimesh
from faulty_node import GPU_FAILS
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from ros_camera import BenchCamera, NodeProcess
from sensor_msgs.msg import CompressedImage, Image
from std_srvs.srv import Trigger

from sparc_ros.image_adapter import fill_image

ANSWER_TIMEOUT_S = 30.0
SLOW_READER = """
import rclpy, time
from rclpy.node import Node
from sensor_msgs.msg import Image
from sparc_ros.msg import AlignedObjectArray
rclpy.init()
node = Node("slow_reader")
for kind, topic in ((Image, "sparc/overlay"), (AlignedObjectArray, "sparc/objects")):
    node.create_subscription(kind, topic, lambda message: print("got one", flush=True), 10)
rclpy.spin(node)
"""


@dataclass
class Scene:
    """What a fault works on. during(seconds) -> None publishes and listens."""

    camera: BenchCamera
    node: NodeProcess
    cad_folder: Path
    during: Callable[[float], None]
    problems: list[str] = field(default_factory=list)


def write_cad_folder(folder: Path, seed: int) -> None:
    """A folder of boxes as CAD models, two of each category of the picture; another seed, other sizes."""
    shutil.rmtree(folder, ignore_errors=True)
    rng = np.random.default_rng(seed)
    for category in ("table", "display", "chair", "sofa", "bookshelf", "bin"):
        (folder / category).mkdir(parents=True)
        for number in range(2):
            box = trimesh.creation.box(rng.uniform(0.4, 1.2, 3))
            box.export(folder / category / f"{category}_{seed}_{number}.obj")


def publisher_dies(scene: Scene) -> tuple[str, str]:
    """The camera driver dies and returns."""
    scene.camera.disconnect()
    scene.during(8.0)
    scene.camera.connect()
    return "no message of image on", "no messages: image on"


def stamps_jump_back(scene: Scene) -> tuple[str, str]:
    """The stamps begin anew, as those of a bag that is played in a loop."""
    scene.during(1.0)
    scene.camera.stamp_offset_s -= 1000.0
    scene.during(2.0)
    return "jumped back", ""


def resolution_changes(scene: Scene) -> tuple[str, str]:
    """Images of half the size, first without the camera info that belongs to them."""
    camera = scene.camera
    half = camera.picture.rgb[::2, ::2]
    depth_mm = np.round(1000 * camera.picture.depth_m[::2, ::2]).astype(np.uint16)

    def images(frame: dict) -> dict:
        return frame | {"image": camera.jpeg(half), "depth": fill_image(Image(), depth_mm, "16UC1")}

    def everything(frame: dict) -> dict:
        info = camera.info(half.shape[1], half.shape[0])
        return images(frame) | {"info": info, "detections": camera.detections(scale=0.5)}

    camera.edit = images
    scene.during(2.5)
    answers = len(camera.ages_s)
    camera.edit = everything
    scene.during(2.5)
    if len(camera.ages_s) == answers:
        scene.problems.append("no answer for images of the other size")
    return "do they belong together", "do they belong together"


def corrupt_jpeg(scene: Scene) -> tuple[str, str]:
    """JPEGs that are cut off and shuffled."""
    rng = np.random.default_rng(0)

    def edit(frame: dict) -> dict:
        noise = rng.integers(0, 256, 5000).astype(np.uint8).tobytes()
        return frame | {"image": CompressedImage(format="jpeg", data=noise)}

    scene.camera.edit = edit
    scene.during(2.5)
    return "image on /image/compressed", "image on /image/compressed"


def nan_depth(scene: Scene) -> tuple[str, str]:
    """A depth image of NaN."""
    nan = np.full(scene.camera.picture.depth_m.shape, np.nan, np.float32)
    scene.camera.edit = lambda frame: frame | {"depth": fill_image(Image(), nan, "32FC1")}
    scene.during(3.0)
    return "no valid value", "no valid value"


def tf_is_gone(scene: Scene) -> tuple[str, str]:
    """Nobody broadcasts the camera's transform any more."""
    scene.camera.tf_on = False
    scene.during(4.0)
    scene.camera.tf_on = True
    return "gravity is not known", "gravity is not known"


def cad_folder_replaced(scene: Scene) -> tuple[str, str]:
    """Another folder of CAD models takes the place of the one in use, then an empty one."""
    write_cad_folder(scene.cad_folder, seed=1)
    scene.during(1.0)
    answer = _call(scene, Trigger, "sparc/reload_cad_library", Trigger.Request())
    if not (answer and answer.success):
        scene.problems.append(f"reload of the new folder: {answer}")
    shutil.rmtree(scene.cad_folder)
    scene.cad_folder.mkdir()
    answer = _call(scene, Trigger, "sparc/reload_cad_library", Trigger.Request())
    if answer is None or answer.success:
        scene.problems.append(f"reload of an empty folder: {answer}")
    return "the library of before is kept", ""


def gpu_fails(scene: Scene) -> tuple[str, str]:
    """CUDA reports an error that it does not get over."""
    once = [True]

    def edit(frame: dict) -> dict:
        score = GPU_FAILS if once[0] else 0.9
        once[0] = False
        return frame | {"detections": scene.camera.detections(score=score)}

    for _ in range(20):  # a frame may be dropped for a newer one
        once[0] = True
        scene.camera.edit = edit
        scene.during(1.0)
        if "on the CPU" in scene.camera.statuses["node"][1]:
            break
    scene.during(1.5)
    return "on the CPU since the GPU failed", "on the CPU since the GPU failed"


def nonsense_parameter(scene: Scene) -> tuple[str, str]:
    """Values that mean nothing."""
    for name, kind, key, value in (
        ("min_score", ParameterType.PARAMETER_DOUBLE, "double_value", float("nan")),
        ("max_rate_hz", ParameterType.PARAMETER_DOUBLE, "double_value", -5.0),
        ("categories", ParameterType.PARAMETER_STRING, "string_value", "everything"),
        ("class_map", ParameterType.PARAMETER_STRING_ARRAY, "string_array_value", ["a=b=c"]),
    ):
        values = ParameterValue(type=kind, **{key: value})
        request = SetParameters.Request(parameters=[Parameter(name=name, value=values)])
        answer = _call(scene, SetParameters, "align_node/set_parameters", request)
        if answer is None or answer.results[0].successful:
            scene.problems.append(f"parameter {name}={value}: {answer}")
    return "", ""


def slow_reader(scene: Scene) -> tuple[str, str]:
    """A reader of objects and overlay stops reading."""
    reader = subprocess.Popen([sys.executable, "-c", SLOW_READER], stdout=subprocess.PIPE, text=True)
    try:
        scene.during(10.0)
        before = len(scene.camera.ages_s)
        scene.during(5.0)
        running = len(scene.camera.ages_s) - before
        os.kill(reader.pid, signal.SIGSTOP)
        scene.during(2.0)
        before = len(scene.camera.ages_s)
        scene.during(5.0)
        stopped = len(scene.camera.ages_s) - before
    finally:
        reader.kill()
        reader.wait()
    if stopped < 0.7 * running:
        scene.problems.append(f"{stopped} answers in 5 s with a stopped reader, {running} with a reading one")
    return "", ""


FAULTS = {
    "publisher dies and returns": publisher_dies,
    "stamps jump back": stamps_jump_back,
    "resolution changes": resolution_changes,
    "corrupt JPEG": corrupt_jpeg,
    "NaN depth": nan_depth,
    "TF gone": tf_is_gone,
    "CAD folder replaced": cad_folder_replaced,
    "nonsense parameters": nonsense_parameter,
    "slow reader": slow_reader,
    "GPU error": gpu_fails,  # last: the node stays on the CPU afterwards
}


def _call(scene: Scene, kind: type, name: str, request):
    """The answer of a service, or None; images go on meanwhile."""
    client = scene.camera.create_client(kind, name)
    try:
        for _ in range(20):
            if client.service_is_ready():
                break
            scene.during(0.1)
        future = client.call_async(request)
        for _ in range(int(ANSWER_TIMEOUT_S / 0.1)):
            if future.done():
                return future.result()
            scene.during(0.1)
        return None
    finally:
        scene.camera.destroy_client(client)
