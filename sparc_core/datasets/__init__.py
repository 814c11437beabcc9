"""Licensed benchmarks in their own formats: ScanNet25k, Scan2CAD, ShapeNet, ROCA's predictions, 3D-FUTURE.

One file a format, each with a reader that names what is wrong with a file. `prepare.py` turns a tree of them
once into the layout that `prepared.py` reads fast. Poses come out in the project's frames.
"""
