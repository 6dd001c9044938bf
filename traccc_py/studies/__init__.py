"""Measurements of rates: of the chain alone, and of the service as the papers on tracking as a service show them."""
