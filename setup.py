"""`pip install .`: sparc_core and its command `sparc`, without ROS 2.

With ROS 2 the package is built by colcon from package.xml and CMakeLists.txt, and this file is not used.
`requirements/` pins the versions that are tested; the bounds here only say what the code needs.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent


def read_version() -> str:
    """The version that package.xml states."""
    return re.search(r"<version>([^<]+)</version>", (HERE / "package.xml").read_text()).group(1)


setup(
    name="sparc_ros",
    version=read_version(),
    description="Aligns CAD models to the objects in an image in nine degrees of freedom (Multi-SPARC)",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.12",
    packages=find_packages(include=["sparc_core", "sparc_core.*"]),
    package_data={"sparc_core": ["weights/*"]},
    install_requires=[
        "torch>=2.6",
        "torchvision>=0.21",
        "warp-lang>=1.10",
        "numpy>=2.0",
        "scipy>=1.13",
        "trimesh>=4.5",
        "networkx",
        "rtree",
        "opencv-python-headless>=4.10",
        "safetensors>=0.4",
        "timm>=1.0",
        "accelerate>=1.10",
        "tensorboardX>=2.6",
        "pycocotools>=2.0.8",
        "typer>=0.15",
        "rich>=13",
        "PyYAML>=6",
        "matplotlib>=3.9",
        "transforms3d>=0.4.2",
    ],
    extras_require={
        "bags": ["rosbags>=0.10", "rosbags-image>=0.10"],
        "models": ["segment-anything", "transformers>=5"],
    },
    entry_points={"console_scripts": ["sparc = sparc_core.scripts.main:app"]},
)
