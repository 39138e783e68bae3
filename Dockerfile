# docker build -t diffusion-service .                    CPU
# docker build -t diffusion-service --target cuda .      NVIDIA GPU (torch's CUDA build)
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
RUN python3 -m venv /venv
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY app app
COPY models models
COPY store store
COPY worker worker
# Where wheels of torch for the CPU lie, for the cpu target: --build-arg PIP_ARGS="--extra-index-url ..."
ARG PIP_ARGS=""
RUN /venv/bin/pip install --no-cache-dir --constraint constraints.txt ${PIP_ARGS} '.[postgres]'

FROM ${BASE} AS cpu
RUN useradd --system --create-home --uid 10001 diffusion && install -d -o diffusion /data
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
CMD ["python3", "-m", "app.api"]

FROM cpu AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility

FROM cpu
