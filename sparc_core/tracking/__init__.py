"""Tracks: which object of this image is which object of the images before."""
