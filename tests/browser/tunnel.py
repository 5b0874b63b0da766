"""A stand-in tunnel that really forwards: ``python tunnel.py PORT`` prints its public address.

Every byte passes untouched, as through a TCP tunnel, so the server sees the public host name.
"""

from __future__ import annotations

import asyncio
import sys


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One direction of a connection, to its end."""
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


async def forward(port: int) -> None:
    """Listen on a free port and connect whoever comes with ``port``."""

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(copy(reader, there[1]), copy(there[0], writer))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    # Browsers take every name under localhost for this machine; the server knows it as foreign.
    print(f"Tunnel ready: http://share.localhost:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(forward(int(sys.argv[1])))
