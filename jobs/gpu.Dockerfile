# The image of cluster.yaml and of the manifests beside this file: GPU workers, and a head.
#
#   docker build -f jobs/gpu.Dockerfile -t davir-ray:0.1.0 .
#
# Linted, and never built where it was written, which has no container engine. `devel`, since Triton, vLLM and DeepSpeed
# compile kernels when they start; wget is what KubeRay asks a node with whether it is well.
FROM nvidia/cuda:13.0.3-devel-ubuntu24.04
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ python3-dev python3-venv wget \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
WORKDIR /opt/davir_ray
COPY pyproject.toml README.md LICENSE ./
COPY davir_ray davir_ray
COPY jobs jobs
# hadolint ignore=DL3013
RUN pip install --no-cache-dir '.[vllm,train,s3]'
USER 1000
