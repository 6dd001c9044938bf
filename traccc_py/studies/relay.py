"""A relay of TCP connections that passes bytes on some time later, where the kernel has no `netem`.

Usage: python -m traccc_py.studies.relay LISTEN_PORT ADDRESS PORT MILLISECONDS
"""

from __future__ import annotations

import asyncio
import contextlib
import sys

__all__ = ["serve_relay"]

_LOCAL = "127.0.0.1"
_CHUNK = 1 << 18
_MOST_WAITING = 256  #: chunks of a direction


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float) -> None:
    """Pass one direction on."""
    loop = asyncio.get_running_loop()
    waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_MOST_WAITING)

    async def send() -> None:
        while True:
            due, chunk = await waiting.get()
            await asyncio.sleep(max(0.0, due - loop.time()))
            if not chunk:
                break
            writer.write(chunk)
            await writer.drain()
        writer.close()

    sender = asyncio.create_task(send())
    with contextlib.suppress(OSError):
        while chunk := await reader.read(_CHUNK):
            await waiting.put((loop.time() + delay, chunk))
    await waiting.put((loop.time() + delay, b""))
    with contextlib.suppress(OSError):
        await sender


async def serve_relay(port: int, address: str, target: int, delay: float) -> None:
    """Relay connections to a port of this machine.

    Parameters
    ----------
    port : int
        The port.
    address, target : str, int
        Where connections go.
    delay : float
        Of each direction [s].
    """

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there_reader, there_writer = await asyncio.open_connection(address, target)
        except OSError:
            writer.close()
            return
        both = (_pass_on(reader, there_writer, delay), _pass_on(there_reader, writer, delay))
        await asyncio.gather(*both)

    server = await asyncio.start_server(connect, _LOCAL, port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    listen, there, to, milliseconds = sys.argv[1:]
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve_relay(int(listen), there, int(to), float(milliseconds) / 1000))
