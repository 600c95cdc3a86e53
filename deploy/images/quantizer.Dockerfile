# The quantizer: a job that reads an FP16 checkpoint and writes an AWQ one. Build at the repository's root:
#   docker build -f deploy/images/quantizer.Dockerfile -t tidegate-quantizer .
#   docker run --gpus all -v /models:/models tidegate-quantizer --help
FROM python:3.11.14-slim-bookworm AS build
WORKDIR /src
RUN python -m venv /opt/tidegate && pip install --no-cache-dir uv==0.13.9
COPY pyproject.toml deploy/images/gpu-constraints.txt README.md LICENSE ./
COPY tidegate tidegate
COPY gateway gateway
COPY worker worker
COPY quantizer quantizer
# Without the overrides in pyproject.toml: these are for CPUs, and leave out Triton.
RUN uv pip install --no-config --no-cache --python /opt/tidegate/bin/python --constraints gpu-constraints.txt '.[quantizer]'

FROM python:3.11.14-slim-bookworm
COPY --from=build /opt/tidegate /opt/tidegate
ENV PATH=/opt/tidegate/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp HF_HUB_OFFLINE=1
USER 10001:10001
STOPSIGNAL SIGTERM
# A job, not a service: its exit code is its health.
HEALTHCHECK NONE
ENTRYPOINT ["python", "-m", "quantizer"]
