# hpo for every service of docker-compose.yml but the database.
#
# Where pip looks for packages can be chosen, for example to have torch built for the CPU alone,
# which makes the image much smaller: docs/docker.md.

FROM python:3.11-slim AS build
ARG PIP_INDEX_URL=""
ARG PIP_EXTRA_INDEX_URL=""
WORKDIR /source
RUN python -m venv /opt/hpo
COPY pyproject.toml README.md LICENSE ./
COPY studies studies
COPY hpo hpo
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/hpo/bin/pip install --disable-pip-version-check '.[postgres]'

FROM python:3.11-slim
RUN useradd --uid 10001 --home-dir /var/lib/hpo --no-create-home --shell /usr/sbin/nologin hpo \
    && install --directory --owner=hpo --group=hpo --mode=0750 /var/lib/hpo
COPY --from=build /opt/hpo /opt/hpo
ENV PATH=/opt/hpo/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    HPO_DATA=/var/lib/hpo/data \
    HPO_STATE=/var/lib/hpo/state
# A new volume that is mounted here begins with this folder's owner. Results are written to
# results/ in it.
WORKDIR /var/lib/hpo
VOLUME /var/lib/hpo
USER hpo
ENTRYPOINT ["hpo"]
CMD ["--help"]
