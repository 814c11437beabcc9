"""Which CAD model is it: image regions and CAD models in one embedding space."""
