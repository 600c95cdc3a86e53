# The gateway: no PyTorch, no transformers, no vLLM. Build at the repository's root:
#   docker build -f deploy/images/gateway.Dockerfile -t tidegate-gateway .
FROM python:3.11.14-slim-bookworm AS build
WORKDIR /src
# The release of the base image fixes the compiler's version as far as it matters.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --no-install-recommends --yes gcc libc6-dev && rm -rf /var/lib/apt/lists/*
RUN python -m venv /opt/tidegate && pip install --no-cache-dir uv==0.13.9
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY tidegate tidegate
COPY gateway gateway
COPY worker worker
COPY quantizer quantizer
RUN uv pip install --no-cache --python /opt/tidegate/bin/python --constraints constraints.txt '.[gateway]'
# What runs for every token is compiled from the sources just installed (docs/adr/0015-compiled-modules.md), with tools
# that stay behind here.
RUN uv venv /opt/compile \
    && uv pip install --no-cache --python /opt/compile/bin/python --constraints constraints.txt --group native '.[gateway]' \
    && built="$(env --chdir=/ /opt/tidegate/bin/python -c 'from tidegate.native.choice import BUILT; print(BUILT)')" \
    && /opt/compile/bin/python -m tidegate.native --require --into "$built"

FROM python:3.11.14-slim-bookworm
COPY --from=build /opt/tidegate /opt/tidegate
# A root file system that cannot be written to: nothing is compiled to it, and /tmp is all that is wanted.
ENV PATH=/opt/tidegate/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp \
    TIDEGATE_GATEWAY_LISTEN=0.0.0.0:50051 TIDEGATE_GATEWAY_ADMIN_LISTEN=0.0.0.0:9464 TIDEGATE_GATEWAY_LOG_FORMAT=json
USER 10001:10001
EXPOSE 50051 9464
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s CMD ["tidegate", "health", "--target", "127.0.0.1:50051"]
ENTRYPOINT ["python", "-m", "gateway"]
