#!/bin/bash
# podman with `--runtime`: conmon drives the runtime under test. Networks
# between containers need netavark and aardvark-dns, the `--init` case catatonit.
# packages: podman conmon iptables iproute2 busybox-static netavark aardvark-dns catatonit
. "$(dirname "$0")/lib.sh.inc"
need podman conmon busybox
PODMAN="podman --tmpdir $scratch/tmp --log-level error
    --runtime $scratch/runtime --cgroup-manager cgroupfs --storage-driver overlay --events-backend file"
export PODMAN CONTAINERS_CONF=$scratch/containers.conf CONTAINERS_STORAGE_CONF=$scratch/storage.conf
# A network namespace of its own for bridges, firewall rules and ports.
podman() { timeout --foreground -k 1 60 nsenter --net="$scratch/net" $PODMAN "$@"; }
export -f podman
export scratch
run() { podman run --network none "$@"; }
in_network() { nsenter --net="$scratch/net" "$@"; }

prepare() {
    runtime_wrapper "$scratch/runtime"
    touch net
    unshare --net="$scratch/net" ip link set lo up || return
    cat > containers.conf <<END
[containers]
log_driver = "k8s-file"
[engine]
runtime_supports_json = ["runtime"]
[network]
network_backend = "netavark"
network_config_dir = "$scratch/networks"
END
    printf '[storage]\ndriver = "overlay"\ngraphroot = "%s/root"\nrunroot = "%s/run"\n' "$scratch" "$scratch" > storage.conf
    busybox_tar bb.tar || return
    podman import --change 'ENV PATH=/bin:/usr/bin' bb.tar bb
}
release() {
    podman pod rm -af -t 0
    podman rm -af -t 0
    podman network prune -f
    pkill -F <(pgrep -f "$scratch/run/networks") 2>/dev/null
    umount "$scratch/net"
    umount -l "$scratch/root/overlay"
}

case_exit_status() { status 7 run --rm bb sh -c 'exit 7'; }
case_output() {
    is "$(run --rm bb echo hello)" hello
    is "$(echo in | run --rm -i bb cat)" in
    is "$(head -c 3000000 /dev/zero | run --rm -i bb wc -c)" 3000000
}
case_missing_program() {
    local said
    said=$(status 127 run --rm bb nosuch 2>&1)
    like "$said" 'not found'
    said=$(status 126 run --rm bb /etc/passwd 2>&1)
    like "$said" 'permission denied'
}
case_terminal() {
    like "$(on_terminal "bash -c 'podman run --network none --rm -it bb sh -c \"tty; stty size; exit 3\"; echo \$?'")" '/dev/pts/0.*'$'\n3'
}
case_exec() {
    run -d --name exec bb sh -c 'while :; do sleep 0.2; done'
    is "$(podman exec exec echo here)" here
    status 4 podman exec exec sh -c 'exit 4'
    is "$(echo through | podman exec -i exec cat)" through
    is "$(podman exec -u 1000:1000 -w /tmp -e A=b exec sh -c 'echo $(id -u):$(id -g) $PWD $A')" "1000:1000 /tmp b"
    like "$(on_terminal "bash -c 'podman exec -it exec tty'")" '/dev/pts/[0-9]+'
    podman exec -d exec sh -c 'echo late > /tmp/late'
    eventually podman exec exec grep -q late /tmp/late
    status 127 podman exec exec nosuch
    podman rm -f -t 0 exec
}
case_logs_and_stop() {
    run -d --name stop bb sh -c 'echo start; trap "echo term; exit 5" TERM; while :; do sleep 0.1; done'
    eventually bash -c 'podman logs stop | grep -q start'
    podman stop -t 20 stop
    is "$(podman logs stop)" $'start\nterm'
    is "$(podman inspect -f '{{.State.ExitCode}} {{.State.Status}}' stop)" "5 exited"
    podman start stop
    podman restart -t 20 stop
    podman kill stop
    is "$(podman wait stop)" 137
    podman rm stop
}
case_copy() {
    # Of a running container podman reads the mount namespace of its process,
    # which is the sentry's and empty; see docs/COMPATIBILITY.md.
    run --name copy bb sh -c 'echo inner > /tmp/inner'
    podman cp copy:/tmp/inner "$scratch/inner"
    is "$(cat inner)" inner
    echo hello > file
    podman cp file copy:/tmp/file
    podman start copy
    eventually bash -c '[ "$(podman inspect -f "{{.State.Status}}" copy)" = exited ]'
    podman cp copy:/tmp/file again
    is "$(cat again)" hello
    podman rm copy
}
case_commit_keeps_writes() {
    run --name commit bb sh -c 'echo kept > /kept; rm /etc/group'
    podman commit -q commit kept
    is "$(run --rm kept sh -c 'cat /kept; test ! -e /etc/group && echo gone')" $'kept\ngone'
    like "$(podman diff commit)" 'A /kept'
    podman rm commit
}
case_pause() {
    run -d --name pause bb sleep 1000
    podman pause pause
    is "$(podman inspect -f '{{.State.Status}}' pause)" paused
    podman unpause pause
    podman exec pause true
    podman rm -f -t 0 pause
}
case_stats() {
    run -d --name stats -m 200m bb sh -c 'while :; do :; done'
    sleep 1
    like "$(podman stats --no-stream --format '{{.CPUPerc}} {{.MemUsage}} {{.PIDs}}' stats)" '^[1-9][0-9.]+% [0-9.]+[kM]B / 2[01][0-9.]*MB [1-9]'
    podman rm -f -t 0 stats
}
case_memory_limit() {
    run --name memory -m 64m --memory-swap 64m bb sh -c 'dd if=/dev/zero of=/dev/null bs=200M count=1; test $? = 137'
    is "$(podman inspect -f '{{.State.ExitCode}}' memory)" 0
    podman rm memory
    # The first process itself.
    status 137 run --rm -m 64m --memory-swap 64m bb dd if=/dev/zero of=/dev/null bs=200M count=1
}
case_limits() {
    is "$(run --rm --cpus 0.5 --pids-limit 33 -m 100m bb cat /sys/fs/cgroup/cpu.max /sys/fs/cgroup/pids.max /sys/fs/cgroup/memory.max)" \
        $'50000 100000\n33\n104857600'
}
case_read_only() {
    is "$(run --rm --read-only --tmpfs /t bb sh -c 'touch /x 2>/dev/null; echo $?; touch /t/x; echo $?')" $'1\n0'
}
case_volumes() {
    mkdir -p vol
    run --rm -v "$scratch/vol:/v" bb sh -c 'echo one > /v/one'
    is "$(cat vol/one)" one
    status 1 run --rm -v "$scratch/vol:/v:ro" bb sh -c 'echo two > /v/two'
    podman volume create data
    run --rm -v data:/d bb sh -c 'echo kept > /d/kept'
    is "$(run --rm -v data:/d bb cat /d/kept)" kept
    podman volume rm data
}
case_users_and_capabilities() {
    is "$(run --rm --user 1000:1000 bb sh -c 'echo $(id -u):$(id -g)')" 1000:1000
    is "$(run --rm --cap-drop all bb awk '/^CapEff/{print $2}' /proc/self/status)" 0000000000000000
    is "$(run --rm --privileged bb sh -c 'ls /dev | grep -cE "^(vd|sd|nvme|mem|kmsg|kvm)"')" 0
}
case_misc_settings() {
    is "$(run --rm --ulimit nofile=100:200 --hostname hh bb sh -c 'ulimit -n; hostname')" $'100\nhh'
    is "$(run --rm --shm-size 1m bb sh -c 'stat -f -c %b:%S /dev/shm')" 256:4096
    is "$(run --rm --security-opt no-new-privileges bb awk '/^NoNewPrivs/{print $2}' /proc/self/status)" 1
}
case_init() {
    like "$(run --rm --init bb ps -o pid,args)" '1 [^ ]*(catatonit|init|podman-init) -- ps'
}
case_healthcheck() {
    run -d --name health --health-cmd 'test -e /tmp/good' --health-interval disable bb sleep 1000
    status 1 podman healthcheck run health
    podman exec health touch /tmp/good
    status 0 podman healthcheck run health
    podman rm -f -t 0 health
}
case_restart_policy() {
    run -d --name restart --restart on-failure:2 bb sh -c 'echo run; exit 1'
    eventually bash -c '[ "$(podman inspect -f "{{.State.Status}} {{.RestartCount}}" restart)" = "exited 2" ]'
    is "$(podman logs restart | grep -c run)" 3
    podman rm restart
}
case_network_between_containers() {
    podman network create net
    podman run -d --name server --network net -p 127.0.0.1:18080:80 bb sh -c 'mkdir /w; echo page > /w/index.html; httpd -f -p 80 -h /w'
    is "$(podman run --rm --network net bb sh -c 'for i in 1 2 3 4 5 6 7 8 9 10; do wget -q -O - http://server/ && exit; sleep 0.3; done')" page
    is "$(in_network busybox wget -q -O - http://127.0.0.1:18080/)" page
    podman rm -f -t 0 server
    podman network rm net
}
case_pod() {
    podman pod create --name pod --network none
    podman run -d --pod pod --name one bb sh -c 'mkdir /w; echo page > /w/index.html; httpd -f -p 80 -h /w'
    podman run -d --pod pod --name two bb sleep 1000
    # The network is the pod's.
    is "$(podman exec two sh -c 'for i in 1 2 3 4 5 6 7 8 9 10; do wget -q -O - http://127.0.0.1/ && exit; sleep 0.3; done')" page
    like "$(podman pod ps --format '{{.Status}}')" Running
    podman pod stop -t 1 pod
    podman pod rm -f -t 0 pod
}
case_build() {
    mkdir -p build
    echo copied > build/file
    printf 'FROM bb\nCOPY file /file\nRUN cat /file > /built && mkdir -p /a/b\nRUN test -d /a/b && echo more >> /built\nUSER user\nCMD ["cat", "/built"]\n' > build/Dockerfile
    podman build -q --network none -t built build
    is "$(run --rm built)" $'copied\nmore'
}
case_checkpoint_refused() {
    run -d --name check bb sleep 1000
    status 125 podman container checkpoint check
    podman rm -f -t 0 check
}
run_cases
