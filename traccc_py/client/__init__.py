"""The client of the service. Needs NumPy and tritonclient alone: ``pip install "traccc-py[client]"``.

Names are imported when they are first used.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from traccc_py.client.asynchronous import AsyncTrackingClient
    from traccc_py.client.options import ClientOptions
    from traccc_py.client.settings import Tls
    from traccc_py.client.tracking import TrackingClient
    from traccc_py.wire import ServedTracks

__all__ = ["AsyncTrackingClient", "ClientOptions", "ServedTracks", "Tls", "TrackingClient"]

_MODULES = {
    "AsyncTrackingClient": "client.asynchronous",
    "ClientOptions": "client.options",
    "ServedTracks": "wire",
    "Tls": "client.settings",
    "TrackingClient": "client.tracking",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(_import_module(f"traccc_py.{_MODULES[name]}"), name)
