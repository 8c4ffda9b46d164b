# RETTER in a container: docs/deployment.md#container says how to run it.
#
# Debian's own Python: the python:slim images alone take all of the 120 MB that this one may have.
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends binutils python3-venv \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/*
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY retter ./retter
# Wheels come with debugging symbols, three quarters of what they weigh.
RUN python3 -m venv /opt/retter \
    && /opt/retter/bin/pip install --no-cache-dir '.[metrics,compress]' \
    && /opt/retter/bin/pip uninstall -y pip setuptools \
    && find /opt/retter -name '*.so' -exec strip --strip-unneeded {} +

# No package manager and no Perl in what is run, of the compiled library only what is imported.
FROM ${BASE} AS root
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates python3 \
    && dpkg --purge --force-depends --force-remove-essential apt perl-base \
    && rm -rf /var/lib/apt /var/cache/apt /usr/lib/python3*/pydoc_data \
    && find /usr/lib/python3* -name __pycache__ -prune -exec rm -rf {} +
COPY --from=build /opt/retter /opt/retter
RUN /opt/retter/bin/python -c "import prometheus_client, retter.server, retter.control.top, \
    retter.control.commands, retter.admin.server, retter.demo.cli, retter.demo.load, tomllib"

# In one layer, so that what was removed takes no room.
FROM scratch
COPY --from=root / /
# Nothing is written into the image's own file system: it may be read-only. The admin listener is the
# container's own: `docker exec NAME retter status`.
ENV PATH=/opt/retter/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    RETTER_LISTEN=:8080 \
    RETTER_ADMIN=127.0.0.1:9090
EXPOSE 8080
USER 10001:10001
# Whether RETTER serves. That the application does not is no reason to restart RETTER.
HEALTHCHECK --interval=30s --timeout=5s --start-period=5s CMD ["retter", "status"]
ENTRYPOINT ["retter"]
