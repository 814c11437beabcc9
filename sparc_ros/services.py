"""The services below `sparc/`: `reset_tracks`, `save_map`, `align_once`, `reload_cad_library`.

Each answers when it is done, without holding up the executor: what takes time happens in the inference
thread or in one of its own.
"""

from __future__ import annotations

import threading
import time

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.task import Future
from std_srvs.srv import Trigger

from sparc_ros.loading import Loaded, load_everything
from sparc_ros.srv import AlignOnce

NOT_ACTIVE = "the node is not active"
DEACTIVATED = "the node was deactivated"


class NodeServices:
    """Offers the services of an `AlignNode`."""

    def __init__(self, node):
        self._node = node
        self._reloading = threading.Lock()
        # In the node's own group an answer that is not ready yet would hold up every other callback.
        group = ReentrantCallbackGroup()
        for kind, name, answer in (
            (Trigger, "sparc/reset_tracks", self._reset_tracks),
            (Trigger, "sparc/save_map", self._save_map),
            (AlignOnce, "sparc/align_once", self._align_once),
            (Trigger, "sparc/reload_cad_library", self._reload_cad_library),
        ):
            node.create_service(kind, name, answer, callback_group=group)

    async def _reset_tracks(self, request, response):
        response.success, response.message = await self._in_inference_thread(
            lambda: f"{self._node.inference.reset_tracks()} tracks ended"
        )
        return response

    async def _save_map(self, request, response):
        response.success, response.message = await self._in_inference_thread(
            lambda: self._node.inference.save_map()
        )
        return response

    async def _align_once(self, request, response):
        if self._node.state != "active":
            response.message = NOT_ACTIVE
            return response
        done = Future()
        self._node.gate.request(lambda outcome: self._finish(done, outcome), time.monotonic())
        objects, problem = await done
        response.success, response.message = problem is None, problem or f"{len(objects.objects)} objects"
        if objects is not None:
            response.objects = objects
        return response

    async def _reload_cad_library(self, request, response):
        inference = self._node.inference
        if inference is None:
            response.message = "the node is not configured"
        elif not self._reloading.acquire(blocking=False):
            response.message = "the CAD library is being loaded already"
        else:
            try:
                response.success, response.message = await self._reload(inference)
            finally:
                self._reloading.release()
        self._node.get_logger().info(f"reload_cad_library: {response.message}")
        return response

    async def _reload(self, inference) -> tuple[bool, str]:
        done = Future()
        threading.Thread(target=self._load, args=(inference, done), daemon=True).start()
        loaded, problem = await done
        if problem is not None:
            return False, f"{problem}; the library of before is kept"
        if self._node.inference is not inference:
            return False, "the node was cleaned up meanwhile"

        def use() -> str:
            inference.use(loaded)
            return f"{len(loaded.library.models)} CAD models, {len(loaded.library.skipped)} skipped"

        if self._node.worker is None:
            return True, use()
        return await self._in_inference_thread(use)

    def _load(self, inference, done: Future) -> None:
        try:
            loaded: Loaded | None = load_everything(inference.load_parameters, inference.load)
            outcome = (loaded, None)
        except Exception as error:  # the answer of the service: the thread has nobody else to tell
            outcome = (None, f"{type(error).__name__}: {error}")
        self._finish(done, outcome)

    async def _in_inference_thread(self, function) -> tuple[bool, str]:
        """(success, text) of a function that returns a text, run between two images."""
        if self._node.worker is None:
            return False, NOT_ACTIVE
        done = Future()

        def answer(call) -> None:
            if call.cancelled():
                self._finish(done, (False, DEACTIVATED))
            elif call.exception() is not None:
                self._finish(done, (False, str(call.exception())))
            else:
                self._finish(done, (True, call.result()))

        self._node.worker.call(function).add_done_callback(answer)
        return await done

    def _finish(self, done: Future, outcome) -> None:
        done.set_result(outcome)
        # From another thread: the executor may be waiting for messages.
        if self._node.executor is not None:
            self._node.executor.wake()
