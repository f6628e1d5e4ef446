# davir_ray without a GPU, with the versions that its tests run with: a small corpus, `davir select`, a look at a run.
#
#   docker build -f jobs/cpu.Dockerfile -t davir-ray-cpu:0.1.0 .
#
# A build of torch for CPUs comes from the index that `--build-arg PIP_EXTRA_INDEX_URL=...` names; without one, pip takes
# a build with CUDA, which works and is large. Linted, and never built where it was written, which has no container
# engine.
FROM python:3.11-slim-bookworm
ARG PIP_EXTRA_INDEX_URL
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ wget \
    && rm -rf /var/lib/apt/lists/*
ENV PYTHONUNBUFFERED=1 RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
WORKDIR /opt/davir_ray
COPY requirements/cpu.txt requirements/
RUN pip install --no-cache-dir torch==2.13.0 \
    && pip install --no-cache-dir --no-deps -r requirements/cpu.txt
COPY pyproject.toml README.md LICENSE ./
COPY davir_ray davir_ray
COPY jobs jobs
RUN pip install --no-cache-dir --no-deps --no-build-isolation . \
    && useradd --create-home --uid 1000 davir
USER 1000
