"""Particle guns, transport through material, digitisation: truth for tests, made apart from the reconstruction."""
