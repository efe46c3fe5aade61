# The command line as an unprivileged user. The gateway has an image of its own, deploy/Dockerfile: another extra, a port,
# a health check, and state of its own.
FROM python:3.12-slim AS build
# An index with CPU builds of torch, for a small image; without it, pip takes what the default index has.
ARG PIP_EXTRA_INDEX_URL=""
WORKDIR /src
COPY . .
RUN python -m pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .
RUN python -m venv /opt/foretaste \
    && /opt/foretaste/bin/pip install --no-cache-dir --constraint constraints.txt /wheels/*.whl

FROM python:3.12-slim
COPY --from=build /opt/foretaste /opt/foretaste
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin foretaste \
    && install -d -o foretaste -g foretaste /data
# The user has no home folder: caches lie where anybody may write.
ENV PATH=/opt/foretaste/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    FORETASTE_CACHE=/tmp/foretaste \
    MPLCONFIGDIR=/tmp/matplotlib
USER 10001
WORKDIR /data
ENTRYPOINT ["foretaste"]
CMD ["--help"]
