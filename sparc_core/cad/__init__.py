"""CAD models: reading, generating, sampling, symmetry. Start with `library.CadLibrary`."""
