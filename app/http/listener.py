"""The socket that the HTTP server listens on."""

import errno
import socket

BACKLOG = 2048  # connections that the kernel holds until they are accepted


def listen(host: str, port: int) -> socket.socket:
    """Open the listening socket. Raises OSError, which names the settings to change."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        why = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be opened ({error})"
        raise OSError(
            f"port {port} of {host} {why}; set DIFFUSION_PORT or DIFFUSION_HOST"
        ) from error
    listener.set_inheritable(True)
    return listener


def address_of(listener: socket.socket) -> str:
    """Return http://host:port.

    For a socket on all interfaces it is the loopback address, which this machine can connect to.
    """
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
