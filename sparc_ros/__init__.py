"""ROS 2 interface of sparc_core.

The generated messages are installed into a folder of this same name. When Python finds this file in the
source tree first, `sparc_ros.msg` lies in the other folder: the package spans both.
"""

import pkgutil

__path__ = pkgutil.extend_path(__path__, __name__)
