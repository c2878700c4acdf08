ARG PYTHON_IMAGE=python:3.11-slim

FROM ${PYTHON_IMAGE} AS build
# A wheel index for torch alone, such as that of its CPU builds; empty: the index pip is set up with.
ARG TORCH_INDEX=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
# The venv has no pip of its own: the final stage needs none.
RUN python3 -m venv --without-pip /opt/kanscope
# torch is most of the image and changes least, so it has the first layer.
RUN python3 -m pip --python /opt/kanscope/bin/python install --no-deps ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch
COPY . .
RUN python3 -m pip --python /opt/kanscope/bin/python install -c .ci/constraints.txt .

FROM ${PYTHON_IMAGE}
COPY --from=build /opt/kanscope /opt/kanscope
RUN mkdir /models
# An empty folder serves the bundled model.
ENV KANSCOPE_MODELS=/models \
    PATH=/opt/kanscope/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
VOLUME /models
EXPOSE 8000
# A number, so that Kubernetes can tell that it isn't root.
USER 10001:10001
# http.client rather than urllib, which would ask a proxy named in the environment.
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s CMD ["python3", "-c", "\
from http.client import HTTPConnection; \
server = HTTPConnection('127.0.0.1', 8000, timeout=4); \
server.request('GET', '/healthz'); \
raise SystemExit(server.getresponse().status != 200)"]
# All addresses, so it wants KANSCOPE_KEYS_FILE or KANSCOPE_KEYS, or KANSCOPE_NO_AUTH=true for a trial.
CMD ["kanscope", "serve", "--host", "0.0.0.0", "--port", "8000"]
