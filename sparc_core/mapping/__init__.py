"""Several posed frames of a scene to one CAD scene: which sightings are one object, and its best estimate."""
