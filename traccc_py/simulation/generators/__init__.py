"""Particles: a gun, and collisions from Pythia 8."""
