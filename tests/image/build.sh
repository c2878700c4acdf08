#!/usr/bin/env bash
# Builds the Dockerfile with buildah, without a Docker daemon, as localhost/kanscope:test.
# usage: build.sh STORE    the folder in which images are kept
# Its base is Debian by debootstrap with this machine's Python in /usr/local, made once. test.sh says what it needs.
set -euo pipefail
cd "$(dirname "$0")/../.."
store=$1
base=localhost/python-base

# A sandbox may forbid to raise limits: keep those of this process.
limits=("nofile=$(ulimit -n):$(ulimit -n)" "nproc=$(ulimit -u):$(ulimit -u)")
mkdir -p "$store"
printf '[containers]\ndefault_ulimits = ["%s", "%s"]\n' "${limits[@]}" >"$store/containers.conf"
export CONTAINERS_CONF=$store/containers.conf BUILDAH_ISOLATION=chroot
in_store() { buildah --root "$store/images" --runroot "$store/run" "$@"; }

make_base() {
    local root python version mirror container
    root=$(mktemp -d)
    mirror=$(find /etc/apt -name '*.sources' -o -name '*.list' | xargs grep -ohE -m 1 'https?://[^ ]+' | head -1)
    debootstrap --variant=minbase \
        --include=ca-certificates,libssl3t64,libffi8,zlib1g,libsqlite3-0,libbz2-1.0,liblzma5,libstdc++6 \
        trixie "$root" "$mirror" >"$store/debootstrap.log"
    python=$(python3 -c 'import sys; print(sys.base_prefix)')
    version=$(python3 -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
    cp -a "$python"/bin/python3* "$root/usr/local/bin/"
    cp -a "$python"/lib/libpython3* "$python/lib/$version" "$root/usr/local/lib/"
    rm -rf "$root/usr/local/lib/$version"/{site-packages/*,test}
    chroot "$root" ldconfig # Python finds its library where it has been copied to
    chroot "$root" /usr/local/bin/python3 -m ensurepip >/dev/null
    container=$(in_store from scratch)
    in_store copy --quiet "$container" "$root" / >/dev/null
    in_store commit --quiet --rm "$container" $base >/dev/null
    rm -rf "$root"
}

in_store images --quiet $base >/dev/null 2>&1 || make_base

# pip is set up in the build as it is here; nothing of it stays in the image.
options=()
for path in /etc/pip.conf /etc/xdg/pip /etc/ssl/certs ${PIP_FIND_LINKS:-}; do
    [ ! -e "$path" ] || options+=(--volume "$path:$path:ro")
done
for name in PIP_CERT PIP_DEFAULT_TIMEOUT PIP_FIND_LINKS PIP_INDEX_URL; do
    [ -z "${!name:-}" ] || options+=(--env "$name=${!name}" --unsetenv "$name")
done

# In Docker's format, since OCI's has no HEALTHCHECK, and with a layer for each COPY, as Docker makes them.
in_store build --format docker --layers --network host --pull-never --ulimit "${limits[0]}" --ulimit "${limits[1]}" \
    "${options[@]}" --build-arg VERSION=1.2.3 --build-arg REVISION=abc --build-arg PYTHON_IMAGE=$base --build-arg TORCH="${TORCH:-cpu}" \
    --tag localhost/kanscope:test .
