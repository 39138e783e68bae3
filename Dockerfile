# docker build -t diffusion-service .                        with or without a GPU
# docker build -t diffusion-service:cuda --target cuda .     requests the GPUs from the NVIDIA runtime
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
RUN python3 -m venv /venv
WORKDIR /src
# PyPI's torch includes CUDA, several GB. For a much smaller image without it:
# --build-arg PIP_ARGS="--extra-index-url <PyTorch's index of CPU wheels>"
ARG PIP_ARGS=""
# Dependencies first: they change less often than the code.
COPY pyproject.toml constraints.txt ./
RUN python3 -c "import tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
        print(*project['dependencies'], *project['optional-dependencies']['postgres'], sep='\n')" > requirements.txt && \
    /venv/bin/pip install --no-cache-dir --constraint constraints.txt ${PIP_ARGS} --requirement requirements.txt
COPY README.md LICENSE ./
COPY app app
COPY client client
COPY host host
COPY models models
COPY store store
COPY worker worker
RUN /venv/bin/pip install --no-cache-dir --no-deps .

FROM ${BASE} AS cpu
# A new volume inherits the owner of its mount point.
RUN useradd --system --create-home --uid 10001 diffusion && install -d -o diffusion /data /artifacts
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    DIFFUSION_HOST=0.0.0.0 \
    DIFFUSION_DATA_DIR=/data
USER diffusion
WORKDIR /data
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s CMD \
    ["python3", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/healthz', timeout=2)"]
CMD ["python3", "-m", "app.server"]

FROM cpu AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility

FROM cpu
