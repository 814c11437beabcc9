"""A tiny tree in the exact formats of ScanNet25k, Scan2CAD, ShapeNet and ROCA, with every trap in it.

Written with numpy, scipy and OpenCV alone, so that a reader cannot agree with its own mistakes. Scan
coordinates: z up, metres. Three scenes are listed, a fourth is only annotated (a training scene):

scene0001_00  a chair and a round table (and a lamp, which is none of the nine categories); frames 000000 and
              000100 from two places, 000200 without a pose
scene0002_00  a bookshelf, a bin hidden behind it and a chair beside the picture; frame 000000
scene0003_00  a chair that nobody predicts; frame 000000
scene0009_00  a chair of factor 1.4 and a table of factor 1.2, no frames
"""

import json
from pathlib import Path

import cv2
import numpy as np
import trimesh
from scipy.spatial.transform import Rotation

CHAIR = ("03001627", "c0ffee01")
TABLE = ("04379243", "7ab1e002")
BOOKSHELF = ("02871439", "b00c0003")
BIN = ("02747177", "b1b00004")
LAMP = ("03636649", "1a3b0005")
SYMMETRIES = {
    CHAIR: "__SYM_NONE",
    TABLE: "__SYM_ROTATE_UP_INF",
    BOOKSHELF: "__SYM_ROTATE_UP_2",
    BIN: "__SYM_ROTATE_UP_4",
    LAMP: "__SYM_NONE",
}
# Half extents and centre of the files' boxes; every diagonal is 1, no box is centred on the origin.
BOXES = {
    CHAIR: ([0.30, 0.32, 0.24], [0.1, 0.2, -0.05]),
    TABLE: ([0.30, np.sqrt(0.07), 0.30], [0.0, -0.1, 0.07]),
    BOOKSHELF: ([0.24, 0.40, np.sqrt(0.25 - 0.24**2 - 0.4**2)], [0.02, 0.1, 0.0]),
    BIN: ([0.25, np.sqrt(0.125), 0.25], [0.0, 0.3, 0.1]),
    LAMP: ([0.3, 0.4, 0.0], [0.0, 0.0, 0.0]),
}
COLOR_SIZE, DEPTH_SIZE = (1296, 968), (640, 480)
COLOR_K = np.array([[1170.0, 0, 647.75], [0, 1172.0, 483.75], [0, 0, 1]])
DEPTH_K = np.array([[577.5, 0, 318.5], [0, 578.5, 241.5], [0, 0, 1]])
# Scan2CAD's own world: y up and shifted. R takes the scan's z to y.
SCENE_TRS = {
    "translation": [0.5, 0.25, -1.0],
    "rotation": [np.sqrt(0.5), -np.sqrt(0.5), 0.0, 0.0],
    "scale": [1.0, 1.0, 1.0],
}
SCENES = ("scene0001_00", "scene0002_00", "scene0003_00")


def upright(yaw_deg):
    """CAD axes in the scan: y up becomes z up, the front looks to −y at yaw 0."""
    return Rotation.from_euler("z", yaw_deg, degrees=True).as_matrix() @ np.array(
        [[1, 0, 0], [0, 0, -1], [0, 1, 0]], dtype=float
    )


def file_pose(key, yaw_deg, factors, box_centre):
    """(R, t, s) of a CAD file whose box centre comes to lie at box_centre."""
    R, s = upright(yaw_deg), np.array(factors, dtype=float)
    return R, np.array(box_centre, dtype=float) - R @ (s * BOXES[key][1]), s


OBJECTS = {
    "scene0001_00": [
        (CHAIR, *file_pose(CHAIR, 30, [1.3, 1.4, 1.2], [-0.6, 2.5, 0.45])),
        (LAMP, *file_pose(LAMP, 0, [1, 1, 1], [0, 4, 1])),
        (TABLE, *file_pose(TABLE, 10, [1.4, 1.4, 1.4], [0.7, 2.8, 0.37])),
    ],
    "scene0002_00": [
        (BOOKSHELF, *file_pose(BOOKSHELF, 0, [2.0, 2.0, 2.0], [0.0, 2.5, 0.8])),
        (BIN, *file_pose(BIN, 0, [0.6, 0.6, 0.6], [0.0, 3.4, 0.3])),
        (CHAIR, *file_pose(CHAIR, 0, [1.3, 1.3, 1.3], [3.0, 2.0, 0.42])),
    ],
    "scene0003_00": [(CHAIR, *file_pose(CHAIR, -20, [1.3, 1.3, 1.3], [0.0, 2.2, 0.42]))],
    "scene0009_00": [
        (CHAIR, *file_pose(CHAIR, 0, [1.4, 1.4, 1.4], [0, 2, 0.4])),
        (TABLE, *file_pose(TABLE, 0, [1.2, 1.2, 1.2], [0, 2, 0.4])),
    ],
}


def camera_pose(x, pitch_deg):
    """T_scan_cam of a camera 1.2 m above the floor that looks along +y and down by pitch_deg."""
    level = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]], dtype=float)
    T = np.eye(4)
    T[:3, :3] = level @ Rotation.from_euler("x", -pitch_deg, degrees=True).as_matrix()
    T[:3, 3] = x, 0, 1.2
    return T


NO_POSE = np.full((4, 4), -np.inf)
FRAMES = {
    "scene0001_00": {"000000": camera_pose(0, 15), "000100": camera_pose(0.5, 12), "000200": NO_POSE},
    "scene0002_00": {"000000": camera_pose(0, 8)},
    "scene0003_00": {"000000": camera_pose(0, 18)},
}


def cad_mesh(key):
    """A mesh that fills its box: a chair with a back, a round table top on a foot, boxes for the rest."""
    half, centre = (np.array(v, dtype=float) for v in BOXES[key])
    if key == CHAIR:  # the front is +z, so the back stands at −z
        parts = [_block((-1, -1, -1), (1, 0, 1)), _block((-1, 0, -1), (1, 1, -0.7))]
    elif key == TABLE:
        parts = [_disc(1, 0.8, 1), _disc(0.5, -1, 0.8)]
    elif key == LAMP:
        parts = [_block((-1, -1, 0), (1, 1, 0.001))]
    else:
        parts = [_block((-1, -1, -1), (1, 1, 1))]
    mesh = trimesh.util.concatenate(parts)
    low, high = mesh.bounds
    mesh.vertices = (mesh.vertices - (low + high) / 2) * (2 * half / (high - low)) + centre
    return mesh


def _block(low, high):
    low, high = np.array(low, dtype=float), np.array(high, dtype=float)
    return trimesh.creation.box(high - low, trimesh.transformations.translation_matrix((low + high) / 2))


def _disc(radius, low, high):
    lie = trimesh.transformations.rotation_matrix(-np.pi / 2, [1, 0, 0])
    lie[1, 3] = (low + high) / 2
    return trimesh.creation.cylinder(radius, high - low, sections=72, transform=lie)


def matrix(R, t, s):
    """4 × 4 of R · diag(s) and t."""
    M = np.eye(4)
    M[:3, :3], M[:3, 3] = R @ np.diag(s), t
    return M


def trs(M):
    """Translation, rotation wxyz and scale of a matrix, as Scan2CAD writes them."""
    s = np.linalg.norm(M[:3, :3], axis=0)
    q = Rotation.from_matrix(M[:3, :3] / s).as_quat()
    return {
        "translation": M[:3, 3].tolist(), "rotation": [q[3], q[0], q[1], q[2]], "scale": s.tolist()
    }  # fmt: skip


def scene_matrix():
    """M(scene.trs): from the scan to Scan2CAD's world."""
    w, x, y, z = SCENE_TRS["rotation"]
    R = Rotation.from_quat([x, y, z, w]).as_matrix()
    return matrix(R, SCENE_TRS["translation"], np.array(SCENE_TRS["scale"]))


def annotations():
    """The content of full_annotations.json."""
    return [
        {
            "id_scan": scene, "trs": dict(SCENE_TRS), "n_aligned_models": len(objects),
            "aligned_models": [
                {
                    "trs": trs(scene_matrix() @ matrix(R, t, s)), "bbox": [float(v) for v in BOXES[key][0]],
                    "center": [float(v) for v in BOXES[key][1]], "sym": SYMMETRIES[key],
                    "catid_cad": key[0], "id_cad": key[1],
                }
                for key, R, t, s in objects
            ],
        }
        for scene, objects in OBJECTS.items()
    ]  # fmt: skip


def appearances():
    """The content of cad_appearances.json."""
    counted = {}
    for scene, objects in OBJECTS.items():
        names = ["_".join(key) for key, *_ in objects]
        counted[scene] = {name: names.count(name) for name in names}
    return counted


def write_tree(root):
    """Everything below root: frames/, scan2cad/, shapenet/, val.txt and per_frame_preds.json."""
    root = Path(root)
    (root / "scan2cad").mkdir(parents=True)
    (root / "scan2cad" / "full_annotations.json").write_text(json.dumps(annotations()))
    (root / "scan2cad" / "cad_appearances.json").write_text(json.dumps(appearances()))
    for key in BOXES:
        folder = root / "shapenet" / key[0] / key[1] / "models"
        folder.mkdir(parents=True)
        cad_mesh(key).export(folder / "model_normalized.obj")
    (root / "val.txt").write_text("\n".join(SCENES) + "\n")
    for scene, poses in FRAMES.items():
        write_scene(root / "frames" / "tasks" / "scannet_frames_25k" / scene, scene, poses)
    (root / "per_frame_preds.json").write_text(json.dumps(roca_predictions()))
    return root


def write_scene(folder, scene, poses):
    """One ScanNet25k scene."""
    for name in ("color", "depth", "pose"):
        (folder / name).mkdir(parents=True)
    for kind, K in (("color", COLOR_K), ("depth", DEPTH_K)):
        full = np.eye(4)
        full[:3, :3] = K
        np.savetxt(folder / f"intrinsics_{kind}.txt", full, fmt="%.6f")
    for name, T in poses.items():
        np.savetxt(folder / "pose" / f"{name}.txt", T, fmt="%.9f")
        seen = T if np.isfinite(T).all() else camera_pose(0, 15)
        depth = render(scene, seen, DEPTH_K, DEPTH_SIZE)
        cv2.imwrite(str(folder / "depth" / f"{name}.png"), np.rint(depth * 1000).astype(np.uint16))
        color = render(scene, seen, COLOR_K, COLOR_SIZE)
        grey = np.clip(255 - color * 45, 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / "color" / f"{name}.jpg"), cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR))


def render(scene, T_scan_cam, K, size):
    """(H, W) z-depth in metres of floor, back wall and objects, triangle by triangle."""
    width, height = size
    u, v = np.meshgrid(np.arange(width), np.arange(height))
    rays = np.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], np.ones_like(u, float)], -1)
    directions = rays @ T_scan_cam[:3, :3].T
    with np.errstate(divide="ignore"):
        floor = np.where(directions[..., 2] < -1e-9, -T_scan_cam[2, 3] / directions[..., 2], np.inf)
        wall = np.where(directions[..., 1] > 1e-9, (4.5 - T_scan_cam[1, 3]) / directions[..., 1], np.inf)
    depth = np.minimum(floor, wall)
    for key, R, t, s in OBJECTS[scene]:
        if key == LAMP:
            continue
        mesh = cad_mesh(key)
        scan = (mesh.vertices * s) @ R.T + t
        cam = (scan - T_scan_cam[:3, 3]) @ T_scan_cam[:3, :3]
        for triangle in cam[mesh.faces]:
            _paint(depth, rays, triangle, K)
    return np.where(np.isfinite(depth), depth, 0)


def _paint(depth, rays, triangle, K):
    """Intersect the rays of the triangle's pixels with it (Möller and Trumbore)."""
    if (triangle[:, 2] <= 0.05).any():
        return
    uv = triangle[:, :2] / triangle[:, 2:] * [K[0, 0], K[1, 1]] + [K[0, 2], K[1, 2]]
    (x0, y0), (x1, y1) = np.floor(uv.min(0)).astype(int), np.ceil(uv.max(0)).astype(int) + 1
    x0, y0, x1, y1 = max(x0, 0), max(y0, 0), min(x1, depth.shape[1]), min(y1, depth.shape[0])
    if x0 >= x1 or y0 >= y1:
        return
    a, e1, e2 = triangle[0], triangle[1] - triangle[0], triangle[2] - triangle[0]
    part = rays[y0:y1, x0:x1]
    p = np.cross(part, e2)
    det = p @ e1
    with np.errstate(divide="ignore", invalid="ignore"):
        b1 = (p @ -a) / det
        q = np.cross(-a, e1)
        b2 = (part @ q) / det
        z = (e2 @ q) / det
        hit = (b1 >= 0) & (b2 >= 0) & (b1 + b2 <= 1) & (z > 0)
    region = depth[y0:y1, x0:x1]
    region[hit & (z < region)] = z[hit & (z < region)]


def fitted_K():
    """Intrinsics of the colour image at 482 × 360, one column cut off at either side."""
    sx, sy = 482 / 1296, 360 / 968
    cx, cy = (647.75 + 0.5) * sx - 0.5 - 1, (483.75 + 0.5) * sy - 0.5
    return np.array([[1170.0 * sx, 0, cx], [0, 1172.0 * sy, cy], [0, 0, 1]])


def in_camera(scene, number, frame):
    """(R, t, s) of an object's CAD file in the camera frame of a frame."""
    T = np.linalg.inv(FRAMES[scene][frame])
    _, R, t, s = OBJECTS[scene][number]
    return T[:3, :3] @ R, T[:3, :3] @ t + T[:3, 3], s


def roca_box(scene, number, frame):
    """The box of an object's vertices in ROCA's pixels, which count from the image's corner."""
    R, t, s = in_camera(scene, number, frame)
    points = (cad_mesh(OBJECTS[scene][number][0]).vertices * s) @ R.T + t
    uvw = points @ fitted_K().T
    uv = uvw[:, :2] / uvw[:, 2:] + 0.5
    low, high = np.clip(uv.min(0), 0, [480, 360]), np.clip(uv.max(0), 0, [480, 360])
    return [*map(float, low), *map(float, high)]


def roca_entry(scene, number, frame, category, score, shift=(0, 0, 0), turn_deg=0, key=None):
    """One entry of ROCA's file: the true pose, shifted in the camera frame and turned about the CAD's y."""
    R, t, s = in_camera(scene, number, frame)
    R = R @ Rotation.from_euler("y", turn_deg, degrees=True).as_matrix()
    q = Rotation.from_matrix(R).as_quat()
    synset, cad_id = key or OBJECTS[scene][number][0]
    return {
        "score": score, "bbox": roca_box(scene, number, frame), "t": (t + shift).tolist(),
        "q": [q[3], q[0], q[1], q[2]], "s": s.tolist(), "category": category,
        "scene_cad_id": [synset, cad_id],
    }  # fmt: skip


def roca_predictions():
    """ROCA's file. Per scene, by hand: the chair of scene 1 is found (twice, once after suppression); its
    table is lost, because a wrong one half a metre away scores higher and only one table may be predicted;
    the bookshelf is found, given as "bookcase" and turned by its symmetry; the bin is 40 cm off. Nothing
    is predicted for the other two chairs."""
    return {
        "scene0001_00/color/000000.jpg": [
            roca_entry("scene0001_00", 0, "000000", "chair", 0.9),
            roca_entry("scene0001_00", 2, "000000", "table", 0.95, shift=(0, 0, 0.5)),
            roca_entry("scene0001_00", 0, "000000", "chair", 0.3, shift=(2, 0, 0)),
            roca_entry("scene0001_00", 0, "000000", "lamp", 0.9),
        ],
        "scene0001_00/color/000100.jpg": [
            roca_entry("scene0001_00", 0, "000100", "chair", 0.8, shift=(0.1, 0, 0)),
            roca_entry("scene0001_00", 2, "000100", "table", 0.7, turn_deg=40),
        ],
        "scene0002_00/color/000000.jpg": [
            roca_entry("scene0002_00", 0, "000000", "bookcase", 0.85, turn_deg=180),
            roca_entry("scene0002_00", 1, "000000", "trashbin", 0.75, shift=(0, 0, 0.4)),
        ],
    }
