"""Pictures and scenes of aligned objects: overlay, silhouettes, GLB and HTML.

Last stage of a run: an `AlignmentResult`'s objects and the CAD library come in; an image or a file
goes out. Nothing here feeds back into the alignment.
"""

from sparc_core.visualise.overlay import draw_overlay, object_color
from sparc_core.visualise.room import RoomScene
from sparc_core.visualise.scene import write_scene
from sparc_core.visualise.zbuffer import silhouette_mask

__all__ = ["RoomScene", "draw_overlay", "object_color", "silhouette_mask", "write_scene"]
