# The image of every Darkroom process: `serve` unless told otherwise, `worker` and `migrate` by the same entry point.
#
# The base is a tag and no digest, so that a plain build has the base's security fixes of its day. For builds that come
# out the same, name a digest: `docker buildx imagetools inspect python:3.13-slim` shows today's, and
# `docker build --build-arg BASE=python:3.13-slim@sha256:... .` holds on to it.
ARG BASE=python:3.13-slim


FROM ${BASE} AS build

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ONLY_BINARY=:all: \
    PIP_ROOT_USER_ACTION=ignore
WORKDIR /src

# The dependencies come first, since their layer changes only with the lists. The environment gets no pip of its own,
# and the build backend stays in this stage.
COPY requirements/bootstrap.txt requirements/runtime.txt requirements/
RUN python -m venv --without-pip /opt/darkroom \
    && pip --python /opt/darkroom/bin/python install --require-hashes -r requirements/runtime.txt \
    && pip install --require-hashes -r requirements/bootstrap.txt

COPY pyproject.toml LICENSE README.md ./
COPY app app
# Into a folder of its own, because Darkroom looks for its migrations beside its package. Nothing installed may hook
# into the interpreter's start: that is where hijacked packages hide.
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && pip --python /opt/darkroom/bin/python install --no-deps --no-index --target /app /wheels/*.whl \
    && test -z "$(find /opt/darkroom /app -name '*.pth')"


FROM ${BASE}

RUN groupadd --gid 10001 darkroom \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin darkroom \
    && install -d -o 10001 -g 10001 -m 0700 /data

# Everything below belongs to root: the process can change nothing but /data.
WORKDIR /app
COPY --from=build /opt/darkroom /opt/darkroom
COPY --from=build /app /app
COPY migrations migrations
COPY config config

ENV PATH=/app/bin:/opt/darkroom/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    DARKROOM_HOST=0.0.0.0 \
    DARKROOM_PORT=8080 \
    DARKROOM_DATA_DIR=/data

USER 10001:10001
EXPOSE 8080

# Of `serve`; a worker listens on nothing, so it switches this off. http.client takes no proxy from the environment.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import http.client, os, sys; asked = http.client.HTTPConnection('127.0.0.1', int(os.environ['DARKROOM_PORT']), timeout=4); asked.request('GET', '/healthz'); sys.exit(asked.getresponse().status != 200)"]

ENTRYPOINT ["darkroom"]
CMD ["serve"]
