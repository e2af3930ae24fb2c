# syntax=docker/dockerfile:1
# The gateway for production: real Redis, real Postgres, no servers inside.
#
#   docker build -t tollkeeper .
#   docker run -p 8080:8080 -v ./config.toml:/etc/tollkeeper/config.toml:ro tollkeeper
#
# The config must listen on 0.0.0.0 and name redis_url and postgres_url.

FROM python:3.11-slim AS build
WORKDIR /src
RUN python -m venv /opt/tollkeeper
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
COPY requirements/serve.txt requirements/serve.txt
RUN /opt/tollkeeper/bin/pip install --require-hashes --requirement requirements/serve.txt
COPY . .
RUN /opt/tollkeeper/bin/pip install --no-deps --no-build-isolation . \
    && /opt/tollkeeper/bin/pip uninstall --yes setuptools pip

FROM python:3.11-slim
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin tollkeeper
COPY --from=build /opt/tollkeeper /opt/tollkeeper
ENV PATH=/opt/tollkeeper/bin:$PATH PYTHONUNBUFFERED=1 \
    TOLLKEEPER_HEALTH_URL=http://127.0.0.1:8080/-/healthz
USER 10001
WORKDIR /tmp
EXPOSE 8080 8081
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=15s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(os.environ['TOLLKEEPER_HEALTH_URL'], timeout=2)"]
CMD ["tollkeeper", "serve", "--config", "/etc/tollkeeper/config.toml"]
