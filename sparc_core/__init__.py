"""Multi-SPARC in PyTorch: align CAD models to the objects in an image in nine degrees of freedom."""

__version__ = "0.1.0"
