"""The protocols of Scan2CAD, ROCA and Multi-SPARC: predictions in a scene or a frame, and their scores."""
