"""InfoCatVAE as a modular probabilistic program in Pyro."""
