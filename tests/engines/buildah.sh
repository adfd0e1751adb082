#!/bin/bash
# buildah: RUN steps of Dockerfiles, `buildah run`, commits.
# packages: buildah busybox-static
. "$(dirname "$0")/lib.sh.inc"
need buildah busybox
export CONTAINERS_CONF=$scratch/containers.conf CONTAINERS_STORAGE_CONF=$scratch/storage.conf
export BUILDAH_RUNTIME=$scratch/runtime
buildah() { timeout --foreground -k 1 120 /usr/bin/buildah --log-level error "$@"; }

prepare() {
    runtime_wrapper "$scratch/runtime"
    printf '[containers]\n[network]\nnetwork_config_dir = "%s/networks"\n' "$scratch" > containers.conf
    printf '[storage]\ndriver = "overlay"\ngraphroot = "%s/root"\nrunroot = "%s/run"\n' "$scratch" "$scratch" > storage.conf
    busybox_tar bb.tar || return
    base=$(buildah from scratch) || return
    buildah add -q "$base" bb.tar / || return
    buildah config --env PATH=/bin:/usr/bin "$base"
    buildah commit -q "$base" bb || return
    buildah rm "$base"
}
release() {
    buildah rm -a
    umount -l "$scratch/root/overlay"
}

case_run() {
    local container
    container=$(buildah from bb)
    is "$(buildah run --network none "$container" -- echo hello)" hello
    status 7 buildah run --network none "$container" -- sh -c 'exit 7'
    buildah run --network none "$container" -- sh -c 'echo kept > /kept; chown 5:6 /kept'
    is "$(buildah run --network none "$container" -- stat -c %u:%g /kept)" 5:6
    is "$(buildah run --network none --user 1000:1000 "$container" -- id -u)" 1000
    is "$(buildah run --network none -v "$scratch:/host:ro" "$container" -- cat /host/storage.conf | head -1)" '[storage]'
    buildah commit -q "$container" kept
    buildah rm "$container"
    container=$(buildah from kept)
    is "$(cat "$(buildah mount "$container")/kept")" kept
    buildah umount "$container"
    buildah rm "$container"
}
case_dockerfile() {
    mkdir -p build
    cat > build/lines.txt <<< "one"
    cat > build/Dockerfile <<'END'
FROM bb AS builder
WORKDIR /src
COPY lines.txt .
RUN for i in $(seq 100); do echo "line $i" >> lines.txt; done && sort lines.txt > sorted.txt
RUN tar -czf out.tar.gz sorted.txt && rm sorted.txt

FROM bb
ARG WORD=default
ENV WORD=$WORD
COPY --from=builder /src/out.tar.gz /
RUN tar -xzf /out.tar.gz && rm /out.tar.gz && test "$(wc -l < /sorted.txt)" = 101
RUN mkdir -p /var/data && chown 1000:1000 /var/data && chmod 2750 /var/data
USER 1000:1000
RUN test "$(id -u)" = 1000 && echo "$WORD" > /var/data/word
END
    buildah build -q --network none --build-arg WORD=given -t built build
    local container mount
    container=$(buildah from built)
    mount=$(buildah mount "$container")
    is "$(stat -c %u:%g:%a "$mount/var/data")" 1000:1000:2750
    is "$(stat -c %u "$mount/var/data/word")" 1000
    is "$(cat "$mount/var/data/word")" given
    is "$(wc -l < "$mount/sorted.txt")" 101
    test ! -e "$mount/out.tar.gz"
    buildah umount "$container"
    buildah rm "$container"
}
case_failing_step() {
    mkdir -p failing
    printf 'FROM bb\nRUN exit 3\n' > failing/Dockerfile
    like "$(status 3 buildah build --network none -t failing failing 2>&1)" 'exit status 3'
}
# A Debian image with apt and pip from local files takes minutes.
case_debian() {
    [ "$LONG" = 1 ] || { echo "only with --long"; exit 77; }
    command -v debootstrap > /dev/null || { echo "debootstrap is not installed"; exit 77; }
    debootstrap --variant=minbase --include=python3-minimal,python3-pip bookworm debian || { tail -3 debian/debootstrap/debootstrap.log; echo "debootstrap failed"; exit 77; }
    mkdir -p image/wheel
    (cd image && apt-get download hello)
    cat > image/wheel/setup.py <<< 'from setuptools import setup; setup(name="local-thing", version="1.0", py_modules=["local_thing"])'
    cat > image/wheel/local_thing.py <<< 'VALUE = 42'
    cat > image/Dockerfile <<'END'
FROM debian-local
COPY *.deb wheel /tmp/local/
RUN apt-get install -y /tmp/local/hello*.deb && hello > /greeting
RUN pip install --break-system-packages --no-index --no-build-isolation /tmp/local && python3 -c 'import local_thing; print(local_thing.VALUE)' > /value
END
    local container mount
    container=$(buildah from scratch)
    buildah add -q "$container" debian /
    buildah commit -q "$container" debian-local
    buildah rm "$container"
    rm -rf debian
    timeout 900 /usr/bin/buildah build --network none -t debian-built image
    container=$(buildah from debian-built)
    mount=$(buildah mount "$container")
    like "$(cat "$mount/greeting")" 'Hello, world'
    is "$(cat "$mount/value")" 42
    buildah umount "$container"
    buildah rm "$container"
}
run_cases
