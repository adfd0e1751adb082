#!/bin/bash
# docker with `runtimes` in a daemon.json of its own: dockerd, its containerd
# and the runc shim drive the runtime under test.
# packages: docker.io iptables iproute2 busybox-static
. "$(dirname "$0")/lib.sh.inc"
need dockerd docker containerd ip iptables busybox

export DOCKER_HOST=unix://$scratch/docker.sock
parent=/runsc-engines-$$
docker() { timeout --foreground -k 1 60 docker "$@"; }
run() { docker run "$@"; }
# Runs a command in the daemon's network namespace, where ports are published.
in_network() { nsenter -t "$daemon" -n "$@"; }

prepare() {
    runtime_wrapper "$scratch/runtime"
    cat > daemon.json <<END
{"runtimes": {"runsc": {"path": "$scratch/runtime"}}, "default-runtime": "runsc",
 "storage-driver": "overlay2", "cgroup-parent": "$parent", "ip6tables": false,
 "exec-opts": ["native.cgroupdriver=cgroupfs"], "live-restore": true}
END
    # A network namespace of its own: bridges and firewall rules stay there.
    setsid unshare -n sh -c 'ip link set lo up; exec "$@"' sh dockerd \
        --config-file "$scratch/daemon.json" --data-root "$scratch/data" --exec-root "$scratch/exec" \
        -H "$DOCKER_HOST" -p "$scratch/docker.pid" > "$scratch/dockerd.log" 2>&1 < /dev/null &
    daemon=$!
    background+=("$daemon")
    eventually docker version || { tail -20 "$scratch/dockerd.log"; return 1; }
    busybox_tar bb.tar || return
    docker import --change 'ENV PATH=/bin:/usr/bin' bb.tar bb
}
release() {
    docker ps -aq | xargs -r timeout 60 docker rm -f
    find /sys/fs/cgroup/*"$parent" -depth -type d -exec rmdir {} +
}

case_exit_status() { status 7 run --rm bb sh -c 'exit 7'; }
case_output() {
    is "$(run --rm bb echo hello)" hello
    is "$(run --rm bb sh -c 'echo out; echo err >&2' 2>/dev/null)" out
    is "$(echo in | run --rm -i bb cat)" in
    is "$(head -c 3000000 /dev/zero | run --rm -i bb wc -c)" 3000000
}
case_missing_program() {
    local said
    said=$(status 127 run --rm bb /no/such 2>&1)
    like "$said" '"/no/such": no such file or directory'
    said=$(status 127 run --rm bb nosuch 2>&1)
    like "$said" 'executable file not found in \$PATH'
    said=$(status 126 run --rm bb /etc/passwd 2>&1)
    like "$said" 'permission denied'
}
case_terminal() {
    like "$(on_terminal "docker run --rm -it bb sh -c 'stty size; tty; exit 3'; echo \$?")" '/dev/pts/0'$'\n3'
}
case_exec() {
    run -d --name exec bb sh -c 'while :; do sleep 0.2; done'
    is "$(docker exec exec echo here)" here
    status 4 docker exec exec sh -c 'exit 4'
    is "$(echo through | docker exec -i exec cat)" through
    is "$(docker exec -u 1000:1000 -w /tmp -e A=b exec sh -c 'echo $(id -u):$(id -g) $PWD $A')" "1000:1000 /tmp b"
    like "$(on_terminal 'docker exec -it exec tty')" '^/dev/pts/[0-9]+'
    docker exec -d exec sh -c 'echo late > /tmp/late'
    eventually docker exec exec grep -q late /tmp/late
    status 127 docker exec exec /no/such || status 126 docker exec exec /no/such
    docker top exec > /dev/null
    docker rm -f exec
}
case_exec_parallel() {
    run -d --name parallel bb sleep 1000
    local i pids=()
    for i in $(seq 8); do docker exec parallel sh -c "exit $i" & pids+=($!); done
    for i in $(seq 8); do status "$i" wait "${pids[$((i - 1))]}"; done
    docker rm -f parallel
}
case_logs_and_stop() {
    run -d --name stop bb sh -c 'echo start; trap "echo term; exit 5" TERM; while :; do sleep 0.1; done'
    eventually sh -c 'docker logs stop | grep -q start'
    docker stop -t 20 stop
    is "$(docker logs stop)" $'start\nterm'
    is "$(docker inspect -f '{{.State.ExitCode}} {{.State.Status}}' stop)" "5 exited"
    docker start stop
    eventually sh -c '[ $(docker logs stop | grep -c start) = 2 ]'
    docker restart -t 20 stop
    eventually sh -c '[ $(docker logs stop | grep -c start) = 3 ]'
    docker kill stop
    is "$(docker inspect -f '{{.State.ExitCode}}' stop)" 137
    docker rm -f stop
}
case_kill_signal() {
    run -d --name kill bb sh -c 'trap "exit 9" USR1; echo ready; while :; do sleep 0.1; done'
    eventually sh -c 'docker logs kill | grep -q ready'
    docker kill -s USR1 kill
    is "$(docker wait kill)" 9
    docker rm kill
}
case_copy() {
    run -d --name copy bb sleep 1000
    echo hello > file
    docker cp file copy:/tmp/file
    is "$(docker exec copy cat /tmp/file)" hello
    docker exec copy sh -c 'mkdir /tmp/dir; echo inner > /tmp/dir/inner; ln -s inner /tmp/dir/link'
    docker cp copy:/tmp/dir "$scratch/dir"
    is "$(cat "$scratch/dir/inner")" inner
    is "$(readlink "$scratch/dir/link")" inner
    docker rm -f copy
}
case_commit_keeps_writes() {
    run --name commit bb sh -c 'echo kept > /kept; rm /etc/group; mkdir /d; chmod 700 /d; chown 5:6 /d'
    docker commit commit kept
    is "$(run --rm kept sh -c 'cat /kept; test ! -e /etc/group && stat -c %a:%u:%g /d')" $'kept\n700:5:6'
    like "$(docker diff commit)" 'A /kept'
    docker rm commit
    docker rmi kept
}
case_pause() {
    run -d --name pause bb sh -c 'while :; do date +%s%N > /tmp/now; done'
    eventually docker exec pause test -s /tmp/now
    docker pause pause
    like "$(docker ps --filter name=pause --format '{{.Status}}')" Paused
    status 1 docker exec pause true
    docker cp pause:/tmp/now first; sleep 0.5; docker cp pause:/tmp/now second
    cmp first second
    docker unpause pause
    docker exec pause true
    docker rm -f pause
}
case_stats() {
    run -d --name stats -m 200m bb sh -c 'while :; do :; done'
    sleep 1
    like "$(docker stats --no-stream --format '{{.CPUPerc}} {{.MemUsage}} {{.PIDs}}' stats)" '^[1-9][0-9.]+% [0-9.]+[KM]iB / 200MiB [1-9]'
    docker rm -f stats
}
case_memory_limit() {
    status 0 run --name memory -m 64m --memory-swap 64m bb sh -c 'dd if=/dev/zero of=/dev/null bs=200M count=1; test $? = 137'
    is "$(docker inspect -f '{{.State.OOMKilled}}' memory)" true
    docker rm memory
    is "$(run --rm -m 64m bb cat /sys/fs/cgroup/memory.max)" $((64 << 20))
}
case_pids_limit() {
    local said
    said=$(run --rm --pids-limit 16 bb sh -c 'for i in $(seq 40); do sleep 1 & done; echo made' 2>&1) || :
    like "$said" "can't fork"
    is "$(run --rm --pids-limit 16 bb cat /sys/fs/cgroup/pids.max)" 16
}
case_cpu_limit() {
    is "$(run --rm --cpus 0.5 bb cat /sys/fs/cgroup/cpu.max)" "50000 100000"
    run -d --name cpu --cpus 0.3 bb sh -c 'while :; do :; done'
    sleep 2
    local used
    used=$(docker stats --no-stream --format '{{.CPUPerc}}' cpu)
    docker rm -f cpu
    used=${used%%.*}
    [ "$used" -ge 5 ] && [ "$used" -le 45 ]
}
case_update() {
    run -d --name update -m 100m bb sleep 1000
    docker update -m 150m --memory-swap 300m --pids-limit 50 update
    is "$(docker exec update cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max)" "$((150 << 20))"$'\n50'
    docker rm -f update
}
case_read_only() {
    local script='touch /x 2>/dev/null; echo $?; touch /t/x; echo $?'
    is "$(run --rm --read-only --tmpfs /t:size=1m bb sh -c "$script")" $'1\n0'
}
case_tmpfs() {
    is "$(run --rm --tmpfs /t:size=1m,mode=700,noexec bb sh -c 'stat -c %a /t; df -k /t | awk "END{print \$2}"; dd if=/dev/zero of=/t/f bs=1M count=2 2>/dev/null; echo $?')" $'700\n1024\n1'
    is "$(run --rm --shm-size 1m bb sh -c 'df -k /dev/shm | awk "END{print \$2}"')" 1024
}
case_volumes() {
    mkdir -p vol
    run --rm -v "$scratch/vol:/v" bb sh -c 'echo one > /v/one'
    is "$(cat vol/one)" one
    status 1 run --rm -v "$scratch/vol:/v:ro" bb sh -c 'echo two > /v/two'
    docker volume create data
    run --rm -v data:/d bb sh -c 'echo kept > /d/kept'
    is "$(run --rm -v data:/d bb cat /d/kept)" kept
    docker volume rm data
    # Both at once see each other's writes.
    run -d --name reader -v "$scratch/vol:/v" bb sleep 1000
    run --rm -v "$scratch/vol:/v" bb sh -c 'echo three > /v/three'
    eventually docker exec reader grep -q three /v/three
    docker rm -f reader
}
case_users() {
    is "$(run --rm --user 1000:1000 bb sh -c 'echo $(id -u):$(id -g)')" 1000:1000
    is "$(run --rm --user user --group-add 7 bb id -G)" "1000 7"
    status 1 run --rm --user 1000 bb touch /x
}
case_capabilities() {
    is "$(run --rm --cap-drop ALL bb awk '/^CapEff/{print $2}' /proc/self/status)" 0000000000000000
    status 1 run --rm --cap-drop ALL bb chown 1 /etc/passwd
    status 0 run --rm bb chown 1 /etc/passwd
    is "$(run --rm --cap-drop ALL --cap-add CHOWN bb awk '/^CapEff/{print $2}' /proc/self/status)" 0000000000000001
}
case_privileged() {
    # Capabilities inside, nothing of the host.
    run --rm --privileged bb sh -c 'mount -t tmpfs none /tmp && touch /tmp/x'
    is "$(run --rm --privileged bb sh -c 'ls /dev | grep -cE "^(vd|sd|nvme|mem|kmsg|kvm)"')" 0
}
case_init() {
    like "$(run --rm --init bb ps -o pid,args)" '1 /sbin/docker-init -- ps'
    # It reaps what is orphaned and passes signals on.
    run -d --name init --init bb sh -c 'trap "exit 3" TERM; echo ready; while :; do sleep 0.1; done'
    eventually sh -c 'docker logs init | grep -q ready'
    docker stop -t 20 init
    is "$(docker inspect -f '{{.State.ExitCode}}' init)" 3
    docker rm init
}
case_healthcheck() {
    run -d --name health --health-cmd 'test -e /tmp/good' --health-interval 0.5s --health-retries 2 bb sleep 1000
    eventually sh -c '[ $(docker inspect -f {{.State.Health.Status}} health) = unhealthy ]'
    docker exec health touch /tmp/good
    eventually sh -c '[ $(docker inspect -f {{.State.Health.Status}} health) = healthy ]'
    docker rm -f health
}
case_restart_policy() {
    run -d --name restart --restart on-failure:2 bb sh -c 'echo run; exit 1'
    eventually sh -c '[ "$(docker inspect -f "{{.State.Status}} {{.RestartCount}}" restart)" = "exited 2" ]'
    is "$(docker logs restart | grep -c run)" 3
    docker rm restart
}
case_misc_settings() {
    is "$(run --rm --ulimit nofile=100:200 --hostname hh --domainname dd bb sh -c 'ulimit -n; hostname; cat /proc/sys/kernel/domainname')" $'100\nhh\ndd'
    is "$(run --rm --sysctl net.core.somaxconn=99 bb cat /proc/sys/net/core/somaxconn)" 99
    is "$(run --rm --oom-score-adj 123 bb cat /proc/1/oom_score_adj)" 123
    is "$(run --rm --security-opt seccomp=unconfined --security-opt no-new-privileges bb awk '/^NoNewPrivs|^Seccomp:/{print $2}' /proc/self/status | tr '\n' ' ')" "1 0 "
    like "$(run --rm --add-host there:10.1.2.3 bb cat /etc/hosts)" '10.1.2.3.there'
    run --rm --cgroupns host bb true
    run --rm --ipc host bb true
}
case_seccomp_profile() {
    echo '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]}' > profile.json
    status 1 run --rm --security-opt "seccomp=$scratch/profile.json" bb mkdir /x
    # The default profile forbids more, and busybox still works under it.
    is "$(run --rm bb awk '/^Seccomp:/{print $2}' /proc/self/status)" 2
}
case_network_between_containers() {
    docker network create net
    run -d --name server --network net bb sh -c 'mkdir /w; echo page > /w/index.html; httpd -f -p 80 -h /w'
    is "$(run --rm --network net bb sh -c 'for i in 1 2 3 4 5 6 7 8 9 10; do wget -q -O - http://server/ && exit; sleep 0.3; done')" page
    like "$(run --rm --network net bb nslookup server 127.0.0.11)" 'Name:.*server'
    docker rm -f server
    docker network rm net
}
case_published_ports() {
    run -d --name web -p 127.0.0.1:18080:80 -p 18081:81/udp bb sh -c 'mkdir /w; echo page > /w/index.html; httpd -f -p 80 -h /w'
    eventually in_network busybox wget -q -O page http://127.0.0.1:18080/
    is "$(cat page)" page
    docker rm -f web
}
case_network_modes() {
    like "$(run --rm --network none bb ip -o addr show lo)" '127.0.0.1/8'
    is "$(run --rm --network none bb sh -c 'ip -o link | wc -l')" 1
    like "$(run --rm bb ip -o addr show eth0)" 'inet 172\.'
    like "$(run --rm --network host bb ip -o link)" docker0
    run -d --name first bb sleep 1000
    is "$(run --rm --network container:first bb ip -o addr show eth0 | grep -o 'inet [0-9.]*')" \
        "$(docker exec first ip -o addr show eth0 | grep -o 'inet [0-9.]*')"
    docker rm -f first
}
case_attach() {
    run -d -i --name attach bb sh -c 'read line; echo got $line'
    # Output before somebody attaches is only in the log.
    is "$(sh -c 'sleep 1; echo word; sleep 1' | docker attach attach)" "got word"
    docker rm -f attach
}
case_build() {
    mkdir -p build
    echo copied > build/file
    printf 'FROM bb\nCOPY file /file\nRUN cat /file > /built && mkdir -p /a/b\nUSER user\nCMD ["cat", "/built"]\n' > build/Dockerfile
    DOCKER_BUILDKIT=0 docker build -q -t built build
    is "$(run --rm built)" copied
    docker rmi built
}
run_cases
