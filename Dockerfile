# docker build -t diffusion-service .                        with or without a GPU
# docker build -t diffusion-service:serve --target serve .   without torch, for hosts that only serve
# docker build -t diffusion-service:cuda --target cuda .     requests the GPUs from the NVIDIA runtime
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS serve-packages
# pip stays out of the images: /pip installs into /venv.
RUN python3 -m venv /pip && python3 -m venv --without-pip /venv
ENV PIP_PYTHON=/venv/bin/python3 PATH=/pip/bin:$PATH
WORKDIR /src
# Other forms of images: --build-arg EXTRAS="heic parquet" (docs/datasets.md); traces: telemetry (docs/monitoring.md)
ARG EXTRAS=""
# Dependencies first: they change less often than the code.
COPY pyproject.toml constraints.txt ./
RUN python3 -c "import tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
        extras = project['optional-dependencies']; \
        write = lambda name, *packages: print(*packages, sep='\n', file=open(name, 'w')); \
        chosen = 'postgres ${EXTRAS}'.split(); \
        write('serve.txt', *project['dependencies'], *(p for name in chosen for p in extras[name])); \
        write('train.txt', *extras['train'])" && \
    pip install --no-cache-dir --constraint constraints.txt --requirement serve.txt
# 110 MB that the service does not use: the packages' own tests, and OpenVINO's parts for GPUs, NPUs and files,
# which its documentation ("local distribution") says may be left out.
RUN cd /venv/lib/python3*/site-packages && find . -type d -name tests -prune -exec rm -r {} + && cd openvino && \
    rm -rf include libs/*_gpu_plugin.so libs/cache.json libs/*_npu_plugin.so libs/*_frontend.so*

FROM serve-packages AS train-packages
# PyPI's torch includes CUDA, several GB. For a much smaller image without it:
# --build-arg PIP_ARGS="--extra-index-url <PyTorch's index of CPU wheels>"
ARG PIP_ARGS=""
RUN pip install --no-cache-dir --constraint constraints.txt ${PIP_ARGS} --requirement train.txt

FROM serve-packages AS code
COPY README.md LICENSE ./
COPY app app
COPY client client
COPY host host
COPY models models
COPY store store
COPY worker worker
RUN pip install --no-cache-dir --no-deps --prefix /code .
# Fails if what was removed is needed after all: imports everything, compiles a network and calls it.
RUN /venv/bin/python3 -c "import app.main, app.noise.process, worker.main, worker.sample_job; \
        from models.runtime.openvino import faster_precision; print(faster_precision())"

FROM ${BASE} AS base
# A new volume inherits the owner of its mount point.
RUN useradd --create-home --uid 10001 diffusion && install -d -o diffusion /data /artifacts
ENV PATH=/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    DIFFUSION_HOST=0.0.0.0 \
    DIFFUSION_DATA_DIR=/data
# By number: Kubernetes' runAsNonRoot cannot tell whether a name is root's.
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s CMD \
    ["python3", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/healthz', timeout=2)"]
CMD ["python3", "-m", "app.server"]

FROM base AS serve
COPY --from=serve-packages /venv /venv
COPY --from=code /code /venv

FROM base AS cpu
COPY --from=train-packages /venv /venv
COPY --from=code /code /venv

FROM cpu AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility

FROM cpu
