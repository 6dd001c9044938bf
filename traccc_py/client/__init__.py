"""The client of the service. Needs only NumPy and tritonclient: ``pip install "traccc-py[client]"``."""

from traccc_py.client.asynchronous import AsyncTrackingClient
from traccc_py.client.options import ClientOptions, Tls
from traccc_py.client.tracking import TrackingClient
from traccc_py.wire import ServedTracks

__all__ = ["AsyncTrackingClient", "ClientOptions", "ServedTracks", "Tls", "TrackingClient"]
