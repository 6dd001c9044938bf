"""Particle gun, collisions, transport through material, digitisation; independent of the reconstruction."""
