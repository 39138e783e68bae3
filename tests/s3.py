"""A real S3 over HTTP: moto's server, in a process of its own that ends with the one that started
it. It keeps everything in memory, and believes any key."""

import os
import secrets
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

KEYS_PER_PAGE = 20  # S3 itself lists 1000 at once


class S3Server:
    def __init__(self, port: int = 0, *buckets: str) -> None:
        """On a port that is free by default, with `buckets` from the first request on."""
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve()), str(port), *buckets],
            env={**os.environ, "MOTO_S3_DEFAULT_MAX_KEYS": str(KEYS_PER_PAGE)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self._process.stdout is not None
        self.address = f"http://127.0.0.1:{int(self._process.stdout.readline())}"

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to know beside DIFFUSION_ARTIFACTS_URL."""
        return {
            "AWS_ENDPOINT_URL": self.address,
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
        }

    def new_bucket(self) -> str:
        """The URL of a folder in an empty one."""
        bucket = f"test-{secrets.token_hex(6)}"
        request = urllib.request.Request(f"{self.address}/{bucket}", method="PUT")
        urllib.request.urlopen(request).close()
        return f"s3://{bucket}/some/folder"

    def stop(self) -> None:
        self._process.communicate()  # the end of its input
        self._process.wait()


def _serve(port: int, buckets: list[str]) -> None:
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server
    from werkzeug.test import Client

    application = DomainDispatcherApplication(create_backend_app)
    for bucket in buckets:
        Client(application).put(f"/{bucket}")
    server = make_server("127.0.0.1", port, application, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)
    sys.stdin.read()
    os._exit(0)  # there is nothing to tidy up, which took moto seconds


if __name__ == "__main__":
    _serve(int(sys.argv[1]), sys.argv[2:])
