"""The client of the service (not there yet)."""
