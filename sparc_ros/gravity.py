"""Where the camera is, where up is and how far below the floor, from TF or an IMU.

In: the image's frame and stamp. Out: `CameraPlace`; what is missing is said in words, never guessed.
"""

from __future__ import annotations

import numpy as np
from rclpy.duration import Duration
from rclpy.time import Time
from tf2_ros import TransformException

from sparc_ros.frame import CameraPlace, InputError
from sparc_ros.parameters import NodeParameters
from sparc_ros.transform_adapter import matrix_from_transform, rotation_matrix

# Weight of a new accelerometer reading: at 200 Hz a time constant of about 0.25 s evens out jolts.
IMU_SMOOTHING = 0.02
STANDARD_GRAVITY = 9.81
# Between these a reading is mostly gravity; outside the device is being shaken or in free fall.
PLAUSIBLE_ACCELERATION = (0.7 * STANDARD_GRAVITY, 1.3 * STANDARD_GRAVITY)


class ImuUp:
    """The direction opposite to gravity in the IMU's frame, smoothed.

    An accelerometer at rest measures the force that holds it up: its reading points up.
    """

    def __init__(self):
        self.frame_id = ""
        self._up_imu: np.ndarray | None = None

    def add(self, msg) -> None:
        """Take in one sensor_msgs/Imu: its orientation when it has one, else its acceleration."""
        a, q = msg.linear_acceleration, msg.orientation
        orientation = np.array([q.x, q.y, q.z, q.w])
        if msg.orientation_covariance[0] >= 0 and np.linalg.norm(orientation) > 0.5:
            # REP 145: the orientation is that of the IMU in a world whose z is up.
            self._up_imu = rotation_matrix(orientation).T @ np.array([0.0, 0.0, 1.0])
        else:
            acceleration = np.array([a.x, a.y, a.z])
            strength = np.linalg.norm(acceleration)
            if not PLAUSIBLE_ACCELERATION[0] <= strength <= PLAUSIBLE_ACCELERATION[1]:
                return
            reading = acceleration / strength
            before = reading if self._up_imu is None else self._up_imu
            smooth = before + IMU_SMOOTHING * (reading - before)
            self._up_imu = smooth / np.linalg.norm(smooth)
        self.frame_id = msg.header.frame_id

    @property
    def up_imu(self) -> np.ndarray | None:
        """(3,) unit vector in `frame_id`, or None before the first usable reading."""
        return self._up_imu


class CameraPlacer:
    """Looks up, for each image, the camera's pose in the fixed frame and the up direction."""

    def __init__(self, tf_buffer, imu: ImuUp):
        self._buffer = tf_buffer
        self._imu = imu

    def place(self, header, parameters: NodeParameters) -> CameraPlace:
        """The camera at the stamp of an image. Waits at most tf_timeout_s; call it off the executor.

        Raises InputError when the camera's place in output_frame is wanted and not known.
        """
        T_fixed_cam, motion_problem = None, None
        if parameters.fixed_frame:
            T_fixed_cam, problem = self._lookup(parameters.fixed_frame, header, header.stamp, parameters)
            if problem:
                motion_problem = f"the camera is taken not to move: {problem} (fixed_frame)"
        up_cam, problem = self._up(header, T_fixed_cam, parameters)
        T_output_cam = self._in_output_frame(header, T_fixed_cam, parameters)
        T_floor_cam, floor_problem = self._on_floor(header, parameters)
        above_floor_m = None
        if T_floor_cam is not None:
            above_floor_m = float(T_floor_cam[2, 3])
            if up_cam is None:
                # z of the floor's frame, seen from the camera
                up_cam, problem = tuple(T_floor_cam[2, :3]), None
        return CameraPlace(
            T_fixed_cam, up_cam, problem, motion_problem, T_output_cam, above_floor_m, floor_problem
        )

    def _on_floor(self, header, parameters: NodeParameters):
        """(4, 4) camera points to `floor_frame`, or None; and what is wrong with it."""
        if not parameters.floor_frame:
            return None, None
        unknown = "the camera's height above the floor is not known, and no help without a depth sensor"
        T_floor_cam, problem = self._lookup(parameters.floor_frame, header, header.stamp, parameters)
        if problem is None and T_floor_cam[2, 3] <= 0:
            problem = f"the camera is {-T_floor_cam[2, 3]:.2f} m below {parameters.floor_frame!r}"
        if problem:
            return None, f"{unknown}: {problem} (floor_frame)"
        return T_floor_cam, None

    def _in_output_frame(self, header, T_fixed_cam, parameters: NodeParameters) -> np.ndarray | None:
        if not parameters.output_frame:
            return None
        if parameters.output_frame == parameters.fixed_frame and T_fixed_cam is not None:
            return T_fixed_cam
        T_output_cam, problem = self._lookup(parameters.output_frame, header, header.stamp, parameters)
        if problem:
            raise InputError(f"{problem}: the objects cannot be published in output_frame")
        return T_output_cam

    def _up(self, header, T_fixed_cam, parameters: NodeParameters):
        unknown = "gravity is not known and left to depth (without: a camera looking 30 degrees down)"
        if parameters.up_source == "none":
            return None, None
        if parameters.up_source == "tf":
            if T_fixed_cam is None:
                return None, f"{unknown} (up_source tf)"
            return tuple(T_fixed_cam[2, :3]), None  # z of the fixed frame, seen from the camera
        if self._imu.up_imu is None:
            return None, f"{unknown}: no usable message on the IMU's topic yet (up_source imu)"
        imu_header = type(header)(frame_id=self._imu.frame_id)
        # The IMU sits still on the camera: the latest transform will do.
        T_cam_imu, problem = self._lookup(header.frame_id, imu_header, Time().to_msg(), parameters)
        if problem:
            return None, f"{unknown}: {problem} (up_source imu)"
        return tuple(T_cam_imu[:3, :3] @ self._imu.up_imu), None

    def _lookup(self, target: str, header, stamp, parameters: NodeParameters):
        # Waiting helps only when the frames are connected and the newest transform is on its way.
        connected = self._buffer.can_transform(target, header.frame_id, Time())
        wait = Duration(seconds=parameters.tf_timeout_s if connected else 0.0)
        try:
            transform = self._buffer.lookup_transform(target, header.frame_id, Time.from_msg(stamp), wait)
            return matrix_from_transform(transform.transform), None
        except (TransformException, ValueError) as error:
            return None, f"no transform from {header.frame_id!r} to {target!r}: {error}"
