"""LitServe with dynamic batching: `python batching_service.py PORT`.

Waiting requests form a batch, and within a batch the requests with equal numbers of steps share a
pipeline call.
"""

import sys
from collections import defaultdict
from typing import Any

import litserve as ls
from ddim import generate, load, png
from fastapi import Response
from PIL.Image import Image


class Sample(ls.LitAPI):
    def setup(self, device: str) -> None:
        self.pipeline = load(device)

    def predict(self, requests: list[dict[str, Any]]) -> list[Image]:
        groups = defaultdict(list)
        for place, request in enumerate(requests):
            groups[request["num_inference_steps"]].append((place, request["seed"]))
        images: dict[int, Image] = {}
        for num_inference_steps, group in groups.items():
            places, seeds = zip(*group, strict=True)
            new = generate(self.pipeline, seeds, num_inference_steps)
            images.update(zip(places, new, strict=True))
        return [images[place] for place in range(len(requests))]

    def encode_response(self, image: Image) -> Response:
        return Response(png(image), media_type="image/png")


if __name__ == "__main__":
    # LitServe polls for the whole batch_timeout even if one request waits; requests that arrive
    # during a batch are taken at once anyway.
    api = Sample(max_batch_size=16, batch_timeout=0.002, api_path="/sample")
    ls.LitServer(api, fast_queue=True).run(
        port=int(sys.argv[1]), host="127.0.0.1", generate_client_file=False, log_level="warning"
    )
