"""Candidates to fitted tracks: Kalman filter, smoother, parameters at the beam line."""
