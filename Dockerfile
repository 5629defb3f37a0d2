# The service with the embedded model; `make image` builds it.
FROM python:3.11-slim AS wheels
WORKDIR /source
COPY clients/python clients/python
COPY settings settings
COPY service service
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels ./clients/python ./settings ./service

FROM python:3.11-slim
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1
COPY requirements.txt /tmp/
# From the largest and least changed to the smallest and most changed layer.
RUN pip install "$(grep '^torch==' /tmp/requirements.txt)"
RUN pip install --requirement /tmp/requirements.txt
COPY --from=wheels /wheels /tmp/wheels
RUN pip install --no-deps /tmp/wheels/*.whl && useradd --create-home --uid 10001 safelight

USER 10001
WORKDIR /home/safelight
EXPOSE 50051
# Speaks no TLS: with SAFELIGHT_TLS__CERTIFICATE, replace it (docs/access.md).
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s \
    CMD ["python", "-m", "safelight_service.grpc_server.probe", "127.0.0.1:50051"]
ENTRYPOINT ["safelight-service"]
# Listens on all addresses, so it needs SAFELIGHT_TOKENS_FILE or client certificates to start, or
# SAFELIGHT_ALLOW_ANONYMOUS=true where the network keeps strangers out.
CMD ["--listen", "0.0.0.0:50051"]
