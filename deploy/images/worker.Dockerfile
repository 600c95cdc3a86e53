# A worker: one engine, one model. Build at the repository's root:
#   docker build -f deploy/images/worker.Dockerfile -t tidegate-worker .
# ENGINE= (empty) leaves vLLM out: an image of 300 MB that runs --engine sim, to try a cluster without GPUs.
FROM python:3.11.14-slim-bookworm AS build
ARG ENGINE=,vllm
WORKDIR /src
# The release of the base image fixes the compiler's version as far as it matters.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --no-install-recommends --yes gcc libc6-dev && rm -rf /var/lib/apt/lists/*
RUN python -m venv /opt/tidegate && pip install --no-cache-dir uv==0.13.9
COPY pyproject.toml constraints.txt deploy/images/gpu-constraints.txt README.md LICENSE ./
COPY tidegate tidegate
COPY gateway gateway
COPY worker worker
COPY quantizer quantizer
# Without the overrides in pyproject.toml: these are for CPUs, and leave out Triton.
RUN uv pip install --no-config --no-cache --python /opt/tidegate/bin/python --constraints gpu-constraints.txt ".[worker${ENGINE}]"
# What runs for every token is compiled from the sources just installed (docs/adr/0015-compiled-modules.md), with tools
# that stay behind here.
RUN uv venv /opt/compile \
    && uv pip install --no-cache --python /opt/compile/bin/python --constraints constraints.txt --group native '.[gateway]' \
    && built="$(env --chdir=/ /opt/tidegate/bin/python -c 'from tidegate.native.choice import BUILT; print(BUILT)')" \
    && /opt/compile/bin/python -m tidegate.native --require --into "$built"

FROM python:3.11.14-slim-bookworm
# Triton compiles its kernels with a C compiler when they are first used.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --no-install-recommends --yes gcc libc6-dev && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/tidegate /opt/tidegate
# What is compiled goes to /tmp, the one place that can be written to: give it a volume to start faster next time.
ENV PATH=/opt/tidegate/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp \
    TIDEGATE_WORKER_LISTEN=0.0.0.0:50061 TIDEGATE_WORKER_ADMIN_LISTEN=0.0.0.0:9465 TIDEGATE_WORKER_LOG_FORMAT=json
USER 10001:10001
EXPOSE 50061 9465
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=600s CMD ["tidegate", "health", "--worker", "--target", "127.0.0.1:50061"]
ENTRYPOINT ["python", "-m", "worker"]
