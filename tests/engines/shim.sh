#!/bin/bash
# containerd with `containerd-shim-runsc-v1`, driven by `ctr` and, for pods, by
# its CRI plug-in.
# packages: containerd busybox-static protobuf-compiler python3-grpcio python3-protobuf
engines=$(realpath "$(dirname "$0")")
. "$engines/lib.sh.inc"
need containerd ctr busybox
: "${SHIM:=$(dirname "$RUNSC")/containerd-shim-runsc-v1}"
if [ ! -x "$SHIM" ]; then
    echo "skip all: $SHIM is not built"
    exit 0
fi
ctr() { timeout --foreground -k 1 60 /usr/bin/ctr -a "$scratch/c.sock" "$@"; }
export -f ctr
export scratch
# run [FLAGS] -- NAME COMMAND…
run() {
    local flags=()
    while [ "$1" != -- ]; do flags+=("$1"); shift; done
    shift
    ctr run --runtime io.containerd.runsc.v1 "${flags[@]}" docker.io/local/bb:latest "$@"
}
export -f run

prepare() {
    mkdir -p bin
    runtime_wrapper "$scratch/bin/runsc"
    ln -s "$(realpath "$SHIM")" bin/containerd-shim-runsc-v1
    cat > config.toml <<END
version = 2
root = "$scratch/root"
state = "$scratch/state"
[grpc]
  address = "$scratch/c.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "docker.io/local/pause:latest"
  disable_tcp_service = true
  restrict_oom_score_adj = true
  stream_server_port = "0"
  [plugins."io.containerd.grpc.v1.cri".cni]
    conf_dir = "$scratch/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    default_runtime_name = "runsc"
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runsc]
      runtime_type = "io.containerd.runsc.v1"
END
    start_containerd || return
    oci_image docker.io/local/bb:latest image.tar || return
    ctr images import image.tar
    ctr -n k8s.io images import image.tar
    oci_image docker.io/local/pause:latest pause.tar sleep 1000000 || return
    ctr -n k8s.io images import pause.tar
}
start_containerd() {
    PATH=$scratch/bin:$PATH setsid containerd -c "$scratch/config.toml" >> "$scratch/containerd.log" 2>&1 < /dev/null &
    echo $! > "$scratch/containerd.pid"
    eventually ctr version || { tail -20 "$scratch/containerd.log"; return 1; }
}
# Cases run in subshells: its pid is kept in a file.
kill_containerd() { kill -KILL "$(cat "$scratch/containerd.pid")"; }
no_shim() { ! pgrep -f "containerd-shim-runsc-v1 .*-address $scratch/c.sock" > /dev/null; }
# Ends a task and forgets its container.
remove() {
    ctr task kill -s KILL "$1" 2>/dev/null || :
    eventually bash -c "ctr task rm -f $1 || ! ctr task ls -q | grep -qx $1"
    ctr container rm "$1"
}
export -f remove
release() {
    local namespace name
    for namespace in default k8s.io; do
        export CONTAINERD_NAMESPACE=$namespace
        for name in $(ctr container ls -q); do remove "$name"; done
    done
    eventually no_shim
    kill_containerd
}
# ended NAME STATUS: it has ended with that; forgets it.
ended() {
    local said
    said=$(ctr task rm "$1" 2>&1)
    if [ "$2" != 0 ]; then like "$said" "exit code $2"; fi
    ctr container rm "$1"
}
task_status() { ctr task ls | awk -v id="$1" '$1 == id { print $3 }'; }
export -f task_status
runs() { eventually bash -c "[ \"\$(task_status $1)\" = RUNNING ]"; }

case_run() {
    is "$(run --rm -- run echo hello)" hello
    status 7 run --rm -- run2 sh -c 'exit 7'
    is "$(run --rm -- run3 sh -c 'echo out; echo err >&2' 2>/dev/null)" out
    # ctr closes its input before there is a task to close it for otherwise.
    is "$( (runs run4; echo in) | run --rm -- run4 cat)" in
    is "$( (runs run5; head -c 3000000 /dev/zero) | run --rm -- run5 wc -c)" 3000000
    is "$(run --rm -- run6 dd if=/dev/zero bs=1000000 count=5 | wc -c)" 5000000
}
case_missing_program() {
    local said
    said=$(status 1 run --rm -- missing /no/such 2>&1)
    like "$said" 'no such file or directory'
    like "$(status 1 run --rm -- missing nosuch 2>&1)" 'executable file not found'
    is "$(ctr container ls -q | grep -c missing)" 0
    is "$(pgrep -fc "containerd-shim-runsc-v1 .*$scratch.*-id missing")" 0
}
case_terminal() {
    like "$(on_terminal "run --rm -t -- terminal sh -c 'stty size; tty; exit 3'; echo \$?")" '/dev/pts/0'$'\n3'
}
case_exec() {
    run -d -- exec sleep 1000
    is "$(ctr task exec --exec-id e1 exec echo here)" here
    status 4 ctr task exec --exec-id e2 exec sh -c 'exit 4'
    is "$( (sleep 1; echo through) | ctr task exec --exec-id e3 exec cat)" through
    is "$(ctr task exec --exec-id e4 --user 1000:1000 --cwd /tmp exec sh -c 'echo $(id -u):$(id -g) $PWD')" "1000:1000 /tmp"
    like "$(on_terminal 'ctr task exec -t --exec-id e5 exec tty')" '/dev/pts/'
    status 1 ctr task exec --exec-id e6 exec /no/such
    local i pids=()
    for i in $(seq 8); do ctr task exec --exec-id "p$i" exec sh -c "exit $i" & pids+=($!); done
    for i in $(seq 8); do status "$i" wait "${pids[$((i - 1))]}"; done
    # As many host processes as there were before are left.
    like "$(ctr task ps exec)" PID
    remove exec
}
case_kill() {
    run -d -- kill sh -c 'trap "exit 9" USR1; while :; do sleep 0.1; done'
    sleep 0.5
    ctr task kill -s USR1 kill
    eventually bash -c '[ "$(task_status kill)" = STOPPED ]'
    ended kill 9
    # A process of exec.
    run -d -- kill2 sleep 1000
    ctr task exec --exec-id long kill2 sleep 1000 &
    local exec=$!
    eventually ctr task kill --exec-id long -s TERM kill2
    status 143 wait $exec
    is "$(task_status kill2)" RUNNING
    remove kill2
}
case_pause() {
    run -d -- pause sleep 1000
    ctr task pause pause
    is "$(task_status pause)" PAUSED
    ctr task resume pause
    is "$(task_status pause)" RUNNING
    remove pause
}
case_metrics() {
    run -d --memory-limit 100000000 -- metrics sleep 1000
    local said
    said=$(ctr task metrics metrics)
    like "$said" 'memory.usage_in_bytes +[1-9]'
    like "$said" 'memory.limit_in_bytes +999997'
    like "$said" 'cpuacct.usage +[1-9]'
    like "$said" 'pids.current +[1-9]'
    remove metrics
}
case_checkpoint() {
    run -d -- checkpoint sleep 1000
    like "$(status 1 ctr task checkpoint checkpoint 2>&1)" 'not supported'
    is "$(task_status checkpoint)" RUNNING
    remove checkpoint
}
case_events() {
    ctr events > events.log 2>&1 &
    local listener=$!
    sleep 0.5
    run -d -- events sleep 1000
    ctr task exec --exec-id e events true
    ctr task pause events
    ctr task resume events
    remove events
    eventually grep -q /tasks/delete events.log
    kill $listener
    local seen
    seen=$(grep -o '/tasks/[a-z-]*' events.log | tr '\n' ' ')
    is "$seen" "/tasks/create /tasks/start /tasks/exec-added /tasks/exec-started /tasks/exit /tasks/paused /tasks/resumed /tasks/exit /tasks/delete "
}
case_oom() {
    ctr events > oom.log 2>&1 &
    local listener=$!
    sleep 0.5
    # The guest's memory is taken from the container's cgroup.
    run -d --memory-limit 60000000 -- oom sh -c 'x=x; while :; do x=$x$x; done'
    eventually bash -c '[ "$(task_status oom)" = STOPPED ]'
    ended oom 137
    eventually grep -q /tasks/oom oom.log
    kill $listener
}
case_loggers() {
    cat > logger <<'END'
#!/bin/bash
exec 5>&-
cat <&3 > "$2" &
cat <&4 > "$2.err"
wait
echo "$CONTAINER_ID $CONTAINER_NAMESPACE $1" >> "$2"
END
    chmod 755 logger
    run -d --log-uri "binary://$scratch/logger?to=$scratch/logged" -- logger sh -c 'echo out; echo err >&2'
    eventually grep -q 'logger default to' logged
    is "$(head -1 logged) $(cat logged.err)" "out err"
    remove logger
    run -d --log-uri "file://$scratch/logs/file" -- file sh -c 'echo out; echo err >&2'
    eventually grep -q err logs/file
    is "$(sort logs/file)" $'err\nout'
    remove file
}
case_restart_of_containerd() {
    run -d -- restart sh -c 'trap "exit 5" USR1; while :; do sleep 0.1; done'
    kill_containerd
    start_containerd
    is "$(task_status restart)" RUNNING
    is "$(ctr task exec --exec-id e restart echo after)" after
    # What ends meanwhile is known afterwards.
    run -d -- meanwhile sh -c 'sleep 1; exit 6'
    kill_containerd
    sleep 2
    start_containerd
    is "$(task_status meanwhile)" STOPPED
    ended meanwhile 6
    ctr task kill -s USR1 restart
    eventually bash -c '[ "$(task_status restart)" = STOPPED ]'
    ended restart 5
}
case_killed_shim() {
    run -d -- shim sleep 1000
    pkill -KILL -f "containerd-shim-runsc-v1 .*-id shim -address $scratch/c.sock"
    eventually bash -c '[ -z "$(task_status shim)" ]'
    ctr container rm shim
    eventually bash -c "! pgrep -f 'runsc.*/shim( |$)'"
    is "$(ls state/io.containerd.runtime.v2.task/default | grep -c shim)" 0
}
case_options() {
    mkdir -p own
    cat > own/runsc.toml <<END
binary_name = "$scratch/bin/runsc"
root = "$scratch/own/state"
[runsc_config]
  debug = "true"
  debug-log = "$scratch/own/log"
END
    run -d --runtime-config-path "$scratch/own/runsc.toml" -- options sleep 1000
    is "$(ls own/state)" options
    [ -e own/log ]
    remove options
    is "$(ls own/state)" ''
    like "$(status 1 run --rm --runtime-config-path "$scratch/own/no-such" -- options2 true 2>&1)" 'no-such'
}
# Pods by annotations: one sandbox, one shim.
case_pod_by_annotations() {
    local kind=io.kubernetes.cri.container-type of=io.kubernetes.cri.sandbox-id
    run -d --annotation "$kind=sandbox" --annotation "$of=pod" -- pod sleep 1000
    run -d --annotation "$kind=container" --annotation "$of=pod" -- one sh -c 'echo one; sleep 1000'
    run -d --annotation "$kind=container" --annotation "$of=pod" -- two sh -c 'sleep 1; exit 3'
    is "$(ctr task ls -q | sort | tr '\n' ' ')" "one pod two "
    is "$(pgrep -fc "containerd-shim-runsc-v1 .*-address $scratch/c.sock")" 1
    eventually bash -c '[ "$(task_status two)" = STOPPED ]'
    ended two 3
    is "$(ctr task exec --exec-id e one echo here)" here
    remove one
    is "$(task_status pod)" RUNNING
    remove pod
    eventually no_shim
}
case_cri_pod() {
    python3 -c 'import grpc, google.protobuf' 2>/dev/null || { echo "python3-grpcio is not installed"; exit 77; }
    protoc -I "$engines/../../cri/proto" --python_out "$scratch" runtime-v1.proto
    PYTHONPATH=$scratch timeout 120 python3 "$engines/cri_pod.py" "$scratch/c.sock" "$scratch/logs"
}
run_cases
