#!/bin/bash
# podman of an unprivileged user: it runs the runtime under test as root of a
# user namespace with the ids of /etc/subuid. The user exists in a mount
# namespace of its own only.
# packages: podman conmon uidmap slirp4netns busybox-static
[ -n "${INSIDE:-}" ] || INSIDE=1 exec unshare -m bash "$0"
. "$(dirname "$0")/lib.sh.inc"
need podman conmon newuidmap busybox setpriv
user=31337
podman() {
    timeout --foreground -k 1 60 setpriv --reuid $user --regid $user --clear-groups \
        env HOME="$scratch/home" XDG_RUNTIME_DIR="$scratch/xdg" USER=engine \
        podman --log-level error --runtime "$scratch/runtime" --cgroup-manager cgroupfs "$@"
}
export -f podman
export scratch user
run() { podman run --network none "$@"; }

prepare() {
    runtime_wrapper "$scratch/runtime"
    # The runtime must be readable for the user, wherever it was built.
    cp "$RUNSC" "$scratch/runsc"
    sed -i "s,exec [^ ]*,exec $scratch/runsc," "$scratch/runtime"
    chmod 755 "$scratch" "$scratch/runsc"
    mkdir -p home/.config/containers xdg etc || return
    cp /etc/passwd /etc/group etc/
    echo "engine:x:$user:$user::$scratch/home:/bin/sh" >> etc/passwd
    echo "engine:x:$user:" >> etc/group
    echo "engine:600000:65536" | tee etc/subuid > etc/subgid
    local file
    for file in passwd group subuid subgid; do mount --bind "etc/$file" "/etc/$file" || return; done
    # Networks of users need the tun device, which some hosts keep to root.
    mknod -m 666 etc/tun c 10 200
    [ ! -e /dev/net/tun ] || mount --bind etc/tun /dev/net/tun
    cat > home/.config/containers/containers.conf <<END
[containers]
log_driver = "k8s-file"
default_ulimits = ["nofile=1024:1024", "nproc=1000:1000"]
[engine]
events_logger = "file"
END
    chown -R $user:$user home xdg
    chmod 700 xdg
    busybox_tar bb.tar || return
    chmod 644 bb.tar
    podman import --change 'ENV PATH=/bin:/usr/bin' "$scratch/bb.tar" bb
}
release() {
    podman rm -af -t 0
    podman system migrate
    umount /etc/passwd /etc/group /etc/subuid /etc/subgid /dev/net/tun
}

case_exit_status() { status 7 run --rm bb sh -c 'exit 7'; }
case_output() {
    is "$(run --rm bb id -u)" 0
    is "$(echo in | run --rm -i bb cat)" in
}
case_exec_and_stop() {
    run -d --name exec bb sh -c 'trap "exit 5" TERM; while :; do sleep 0.1; done'
    is "$(podman exec exec echo here)" here
    status 4 podman exec exec sh -c 'exit 4'
    podman stop -t 20 exec
    is "$(podman inspect -f '{{.State.ExitCode}}' exec)" 5
    podman rm exec
}
case_users() {
    is "$(run --rm --user 1000:1000 bb sh -c 'echo $(id -u):$(id -g)')" 1000:1000
    # Ids inside are the user's subordinate ids outside.
    mkdir -m 777 vol
    run --rm -v "$scratch/vol:/v" bb sh -c 'touch /v/root /v/user; chown 1000:1000 /v/user'
    is "$(stat -c %u vol/root vol/user | tr '\n' ' ')" "$user 600999 "
}
case_writes_are_kept() {
    run --name commit bb sh -c 'echo kept > /kept'
    podman commit -q commit kept
    is "$(run --rm kept cat /kept)" kept
    podman rm commit
}
case_build() {
    mkdir -p build
    printf 'FROM bb\nRUN echo built > /built\nCMD ["cat", "/built"]\n' > build/Dockerfile
    podman build -q --network none -t built build
    is "$(run --rm built)" built
}
case_network_of_the_user() {
    podman run -d --name server bb sh -c 'mkdir /w; echo page > /w/index.html; httpd -f -p 8080 -h /w'
    is "$(podman exec server sh -c 'for i in 1 2 3 4 5 6 7 8 9 10; do wget -q -O - http://127.0.0.1:8080/ && exit; sleep 0.3; done')" page
    podman rm -f -t 0 server
}
run_cases
