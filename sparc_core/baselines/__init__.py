"""Methods to compare with: ROCA and Mask2CAD, on the perception, CAD models and data of the aligner."""
