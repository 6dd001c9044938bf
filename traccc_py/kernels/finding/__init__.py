"""Seeds to track candidates: the combinatorial Kalman filter."""
