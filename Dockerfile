# By its digest, which pins Debian's packages and Python; `docker buildx imagetools inspect python:3.11-slim-trixie` has
# the newest.
ARG PYTHON_IMAGE=python:3.11-slim-trixie@sha256:90744cff8f32887f075c47d747a173ff333e9e98801667af93c357fa9f5e28ff

# Everything but Kanscope itself, in a venv that has no pip of its own. It changes with the lock alone.
FROM ${PYTHON_IMAGE} AS dependencies
# torch's build, by uv's name for it: cpu, which is all that is used, or cu130 and the like; pip: that of pip's index.
ARG TORCH=cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
RUN python3 -m venv --without-pip /opt/kanscope
COPY .ci/build-requirements.txt .ci/
RUN python3 -m pip install --require-hashes --no-deps -r .ci/build-requirements.txt
# torch has a lock of its own: its builds for CPU and CUDA differ in hash, and in what they need. The CPU build comes
# with its hash, another in the same version.
COPY .ci/torch-requirements.txt .ci/
RUN version=$(sed -n 's/^torch==\([0-9.]*\).*/\1/p' .ci/torch-requirements.txt) \
    && case "$TORCH" in \
    cpu) uv pip install --no-cache --python /opt/kanscope/bin/python --no-deps --torch-backend cpu --require-hashes \
        -r .ci/torch-requirements.txt ;; \
    pip) python3 -m pip --python /opt/kanscope/bin/python install --no-deps "torch==$version" ;; \
    *) uv pip install --no-cache --python /opt/kanscope/bin/python --no-deps --torch-backend "$TORCH" "torch==$version" ;; \
    esac
COPY .ci/requirements.txt .ci/
# The second line has something to do for a CUDA build alone.
RUN python3 -m pip --python /opt/kanscope/bin/python install --require-hashes --no-deps -r .ci/requirements.txt \
    && python3 -m pip --python /opt/kanscope/bin/python install torch \
    && python3 -m pip --python /opt/kanscope/bin/python check
# What nothing here runs: torch's headers, CMake files and compiler of protocols, with which others compile against it
# (it wants torch_shm_manager and torch.testing itself), ONNX Runtime's library for C, what rewrites graphs, static
# libraries, the tests of all packages, and botocore's descriptions of what isn't S3 or credentials for it.
RUN cd /opt/kanscope/lib/python3*/site-packages \
    && rm -rf torch/include torch/share torch/bin/protoc* torch/test \
        onnxruntime/capi/libonnxruntime.so* onnxruntime/quantization onnxruntime/tools onnxruntime/transformers onnx/backend \
    && find . -type d -name tests -prune -exec rm -rf {} + \
    && find botocore/data -mindepth 1 -maxdepth 1 -type d ! -name s3 ! -name sts ! -name 'sso*' -exec rm -rf {} + \
    && find . -name '*.a' -delete
# The largest libraries come with a table of symbols for debuggers, a fifth of their bytes; the loader reads another.
# Those alone: of libraries that patchelf has rewritten, as numpy's are, strip makes files that don't load.
# Debian's packages are those of the day of the base, by the snapshot that its sources name.
RUN sources=/etc/apt/sources.list.d/debian.sources \
    && if grep -qs '^# http://snapshot' "$sources"; then sed -i '/^URIs:/d; s/^# \(http:..snapshot\)/URIs: \1/' "$sources"; fi \
    && apt-get -o Acquire::Check-Valid-Until=false update && apt-get install -y --no-install-recommends binutils \
    && cd /opt/kanscope/lib/python3*/site-packages \
    && strip --strip-unneeded torch/lib/libtorch_cpu.so torch/lib/libtorch_python.so _polars_runtime*/*.so

# Kanscope as a tree of its own, so that a change of it is a small layer.
FROM dependencies AS kanscope
COPY . .
RUN python3 -m pip wheel --no-build-isolation --no-deps --wheel-dir /wheel . \
    && python3 -m pip --python /opt/kanscope/bin/python install --no-deps --no-index --root /tree /wheel/*.whl

# The system without what only a developer or an administrator needs: pip and what brings it back, the parts of Python
# to compile or test with, its editor; documentation, translations, and the package manager's lists and downloads.
# dpkg's own list stays, since scanners read it. And no program can give its user more rights.
FROM ${PYTHON_IMAGE} AS system
RUN for lib in /usr/local/lib/python3* /usr/lib/python3*; do \
        rm -rf "$lib"/config-* "$lib"/ensurepip "$lib"/idlelib "$lib"/lib2to3 "$lib"/pydoc_data "$lib"/test \
            "$lib"/tkinter "$lib"/turtledemo "$lib"/*-packages/*; \
    done \
    && rm -rf /usr/local/bin/pip* /usr/local/include /usr/local/share/man /usr/share/doc /usr/share/info \
        /usr/share/locale /usr/share/man /var/lib/apt/lists/* /var/cache/* /var/log/* /root/.cache \
    && find /usr -name '*.a' -delete \
    && find / -xdev -type f -perm /6000 -exec chmod ug-s {} + \
    && mkdir /models

# From scratch, since a file deleted in a layer still lies in the one below.
FROM scratch
COPY --from=system / /
COPY --from=dependencies /opt/kanscope /opt/kanscope
COPY --from=kanscope /tree /
# The bundled model is served if KANSCOPE_MODELS is empty, and never in place of the models of a volume that are missing.
# Only models of a URL are written, so the root may be read-only otherwise. MLflow's client does not start without a home.
ENV KANSCOPE_HOST=0.0.0.0 \
    KANSCOPE_PORT=8000 \
    KANSCOPE_MODELS=/models \
    KANSCOPE_DOWNLOADS=/tmp/kanscope \
    HOME=/tmp \
    LANG=C.UTF-8 \
    PATH=/opt/kanscope/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# What it is, for registries and scanners; `make image` gives the base by its digest.
ARG PYTHON_IMAGE
ARG VERSION
ARG REVISION
LABEL org.opencontainers.image.title="Kanscope" \
    org.opencontainers.image.description="Serves and explains LSTM+KAN forecasters" \
    org.opencontainers.image.licenses="Apache-2.0 AND ISC AND MIT AND CC0-1.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.base.name="${PYTHON_IMAGE}"
VOLUME /models
EXPOSE 8000
# A number, so that Kubernetes can tell that it isn't root.
USER 10001:10001
# http.client rather than urllib, which would ask a proxy named in the environment.
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s CMD ["python3", "-ISc", "\
import os; \
from http.client import HTTPConnection; \
server = HTTPConnection('127.0.0.1', int(os.environ['KANSCOPE_PORT']), timeout=4); \
server.request('GET', '/healthz'); \
raise SystemExit(server.getresponse().status != 200)"]
# All addresses, so it wants KANSCOPE_KEYS_FILE or KANSCOPE_KEYS, or KANSCOPE_NO_AUTH=true for a trial. No shell stands between, so signals reach the server.
CMD ["kanscope", "serve"]
