# The service with the embedded model; `make image` builds it.
#
# TORCH_INDEX_URL: package index with other builds of torch. The default build of torch for x86-64
#   brings CUDA; an index of CPU builds makes a much smaller image for machines without a GPU.
# EXTRA_PACKAGES: further packages, such as 'torchao' for quantization or 'ray[serve-grpc]==2.60.0'.
FROM python:3.11-slim AS wheels
WORKDIR /source
COPY clients/python clients/python
COPY settings settings
COPY service service
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels ./clients/python ./settings ./service

FROM python:3.11-slim
ARG TORCH_INDEX_URL=""
ARG EXTRA_PACKAGES=""
# NVIDIA's container runtime adds the driver; on other machines these variables have no effect.
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
# For `acceleration.compile`: torch and Triton compile what they generate.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
COPY requirements.txt /tmp/
# From the largest and least changed to the smallest and most changed layer.
RUN PIP_EXTRA_INDEX_URL="$TORCH_INDEX_URL" pip install "$(grep '^torch==' /tmp/requirements.txt)"
RUN pip install --requirement /tmp/requirements.txt
# Its words are separate packages.
# hadolint ignore=SC2086,DL3013
RUN test -z "$EXTRA_PACKAGES" || pip install --constraint /tmp/requirements.txt $EXTRA_PACKAGES
COPY --from=wheels /wheels /tmp/wheels
RUN pip install --no-deps /tmp/wheels/*.whl && useradd --create-home --uid 10001 safelight

USER 10001
WORKDIR /home/safelight
EXPOSE 50051
# With TLS, replace it by the same with --tls FOLDER (docs/access.md).
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s \
    CMD ["python", "-m", "safelight_service.grpc_server.probe", "127.0.0.1:50051"]
ENTRYPOINT ["safelight-service"]
# Listens on all addresses, so it needs SAFELIGHT_TOKENS_FILE or client certificates to start, or
# SAFELIGHT_ALLOW_ANONYMOUS=true where the network keeps strangers out.
CMD ["--listen", "0.0.0.0:50051"]
