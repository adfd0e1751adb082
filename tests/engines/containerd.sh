#!/bin/bash
# containerd with its runc shim, whose `BinaryName` is the runtime under test,
# driven by `ctr`.
# packages: containerd busybox-static iproute2
. "$(dirname "$0")/lib.sh.inc"
need containerd ctr containerd-shim-runc-v2 busybox
ctr() { timeout --foreground -k 1 60 /usr/bin/ctr -n "$space" -a "$scratch/containerd.sock" "$@"; }
export -f ctr
# The shim keeps containers of a namespace where all daemons of the host do.
space=engines$$
export scratch space
# run [FLAGS] -- NAME COMMAND…
run() {
    local flags=()
    while [ "$1" != -- ]; do flags+=("$1"); shift; done
    shift
    ctr run --runtime io.containerd.runc.v2 --runc-binary "$scratch/runtime" "${flags[@]}" local/bb:latest "$@"
}
export -f run

prepare() {
    runtime_wrapper "$scratch/runtime"
    cat > config.toml <<END
version = 2
root = "$scratch/root"
state = "$scratch/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "$scratch/containerd.sock"
END
    start_containerd || return
    oci_image local/bb:latest image.tar || return
    ctr images import image.tar
}
start_containerd() {
    setsid containerd -c "$scratch/config.toml" >> "$scratch/containerd.log" 2>&1 < /dev/null &
    containerd=$!
    background+=("$containerd")
    eventually ctr version || { tail -20 "$scratch/containerd.log"; return 1; }
}
remove() {
    ctr task kill -s KILL "$1" 2>/dev/null || :
    eventually bash -c "ctr task rm -f $1 || ! ctr task ls -q | grep -qx $1"
    ctr container rm "$1"
}
export -f remove
release() {
    local name
    for name in $(ctr container ls -q); do remove "$name"; done
    rmdir "/run/containerd/runc/$space"
}

case_run() {
    is "$(run --rm -- run echo hello)" hello
    status 7 run --rm -- run2 sh -c 'exit 7'
    is "$(echo in | run --rm -- run3 cat)" in
}
case_missing_program() {
    local said
    said=$(status 1 run --rm -- missing /no/such 2>&1)
    like "$said" 'no such file or directory'
    is "$(ctr container ls -q | grep -c missing)" 0
}
case_terminal() {
    like "$(on_terminal "bash -c 'run --rm -t -- terminal tty'")" '/dev/pts/0'
}
case_exec() {
    run -d -- exec sleep 1000
    is "$(ctr task exec --exec-id one exec echo here)" here
    status 4 ctr task exec --exec-id two exec sh -c 'exit 4'
    is "$(echo through | ctr task exec --exec-id three exec cat)" through
    like "$(on_terminal "bash -c 'ctr task exec -t --exec-id four exec tty'")" '/dev/pts/[0-9]+'
    like "$(ctr task ps exec)" '[0-9]'
    remove exec
}
case_pause_and_metrics() {
    run -d -- pause sleep 1000
    ctr task pause pause
    like "$(ctr task ls | grep pause)" PAUSED
    ctr task resume pause
    like "$(ctr task ls | grep pause)" RUNNING
    like "$(ctr task metrics pause)" 'memory'
    remove pause
}
case_kill() {
    run -d -- kill sh -c 'trap "exit 9" USR1; while :; do sleep 0.1; done'
    sleep 0.5
    ctr task kill -s USR1 kill
    eventually bash -c 'ctr task ls | grep kill | grep -q STOPPED'
    like "$(ctr task rm kill 2>&1)" 'exit code 9'
    ctr container rm kill
}
case_events() {
    timeout 8 /usr/bin/ctr -n "$space" -a "$scratch/containerd.sock" events > "$scratch/events" & local pid=$!
    sleep 0.5
    run --rm -- events true
    eventually grep -q '/tasks/exit' "$scratch/events"
    kill "$pid"
    grep -q '/tasks/create' "$scratch/events"
    grep -q '/tasks/start' "$scratch/events"
    grep -q '/tasks/delete' "$scratch/events"
}
case_limits_and_mounts() {
    run -d --memory-limit 104857600 -- limits sleep 1000
    like "$(ctr task metrics limits)" 104857600
    remove limits
    mkdir -p vol; echo data > vol/data
    is "$(run --rm --mount "type=bind,src=$scratch/vol,dst=/v,options=rbind:ro" -- mounts cat /v/data)" data
    status 1 run --rm --read-only -- read-only touch /x
}
case_parallel() {
    local i pids=()
    for i in $(seq 10); do run --rm -- "parallel$i" sh -c "exit $i" & pids+=($!); done
    for i in $(seq 10); do status "$i" wait "${pids[$((i - 1))]}"; done
}
run_cases
