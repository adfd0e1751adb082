#!/bin/bash
# conmon, called as CRI-O calls it: it creates containers, holds their logs and
# terminals, runs `exec` with a process file, and writes exit files.
# packages: conmon busybox-static python3-minimal
. "$(dirname "$0")/lib.sh.inc"
need conmon busybox python3
runtime() { timeout 30 "$scratch/runtime" --root "$scratch/state" "$@"; }
export -f runtime
export scratch

prepare() {
    runtime_wrapper "$scratch/runtime"
    busybox_tar bb.tar || return
    mkdir -p rootfs exits exec-exits persist sockets
    tar -C rootfs -xf bb.tar
}
release() {
    local id
    for id in $(runtime list -q); do runtime delete --force "$id"; done
    rmdir /sys/fs/cgroup/*/runsc-engines-conmon
}
# bundle ID CHANGE-IN-PYTHON: a bundle with CRI-O's annotations.
bundle() {
    mkdir -p "bundles/$1"
    ( cd "bundles/$1"; "$scratch/runtime" spec )
    python3 - "bundles/$1/config.json" "$scratch/rootfs" "$1" "$2" <<'END'
import json, sys
path, rootfs, name, change = sys.argv[1:]
c = json.load(open(path))
c["root"] = {"path": rootfs}
c["process"]["terminal"] = False
c["annotations"] = {
    "io.kubernetes.cri-o.ContainerType": "sandbox", "io.kubernetes.cri-o.SandboxID": name,
    "io.kubernetes.cri-o.ContainerName": name, "io.kubernetes.cri-o.TTY": "false",
    "io.container.manager": "cri-o"}
c["linux"]["cgroupsPath"] = "/runsc-engines-conmon/" + name
exec(change)
json.dump(c, open(path, "w"))
END
}
# create ID: as CRI-O does; answers when the container is created.
create() {
    local id=$1
    shift
    conmon -b "$scratch/bundles/$id" -c "$id" -u "$id" -n "name-$id" --exit-dir "$scratch/exits" \
        -l "$scratch/$id.log" --log-level warning -p "$scratch/$id.pid" -P "$scratch/$id.conmon-pid" \
        -r "$scratch/runtime" --runtime-arg "--root=$scratch/state" --persist-dir "$scratch/persist" \
        --socket-dir-path "$scratch/sockets" "$@" 3> /dev/null
    eventually test -s "$scratch/$id.pid"
    eventually bash -c "runtime state $id | grep -q '\"created\"'"
}
exit_code() { eventually test -s "$scratch/exits/$1"; cat "$scratch/exits/$1"; }

case_lifecycle() {
    bundle life 'c["process"]["args"] = ["sh", "-c", "echo out; echo err >&2; exit 7"]'
    create life
    is "$(runtime state life | grep -o '"pid": *[0-9]*' | grep -o '[0-9]*$')" "$(cat life.pid)"
    runtime start life
    is "$(exit_code life)" 7
    like "$(cat life.log)" 'stdout F out'
    like "$(cat life.log)" 'stderr F err'
    runtime delete life
}
case_terminal() {
    bundle tty 'c["process"]["args"] = ["sh", "-c", "tty; stty size"]; c["process"]["terminal"] = True'
    create tty -t
    runtime start tty
    is "$(exit_code tty)" 0
    like "$(cat tty.log)" '/dev/pts/0'
    runtime delete tty
}
case_stdin() {
    bundle stdin 'c["process"]["args"] = ["sh", "-c", "read line; echo got $line"]'
    create stdin -i
    runtime start stdin
    python3 - "$scratch/sockets" stdin <<'END'
import glob, socket, sys, time
path = glob.glob(sys.argv[1] + "/" + sys.argv[2] + "*/attach") + glob.glob(sys.argv[1] + "/*/attach")
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
s.connect(path[0])
s.send(b"word\n")
time.sleep(1)
END
    is "$(exit_code stdin)" 0
    like "$(cat stdin.log)" 'got word'
    runtime delete stdin
}
case_exec() {
    bundle exec 'c["process"]["args"] = ["sleep", "1000"]'
    create exec
    runtime start exec
    python3 - bundles/exec/config.json process.json <<'END'
import json, sys
p = json.load(open(sys.argv[1]))["process"]
p["args"] = ["sh", "-c", "echo inside $0 $(id -u) $PWD; exit 5", "argument"]
p["user"] = {"uid": 1000, "gid": 1000, "additionalGids": [7]}
p["cwd"] = "/tmp"
json.dump(p, open(sys.argv[2], "w"))
END
    # The exit status comes over a pipe whose number conmon gets.
    local said
    said=$(_OCI_SYNCPIPE_ID=6 _OCI_SYNCPIPE=6 conmon -c exec -u exec-1 -n name-exec -b "$scratch/bundles/exec" \
        -r "$scratch/runtime" --runtime-arg "--root=$scratch/state" -p "$scratch/exec-1.pid" \
        -e --exec-process-spec "$scratch/process.json" -l "$scratch/exec-1.log" \
        --exit-dir "$scratch/exec-exits" --persist-dir "$scratch/persist" --socket-dir-path "$scratch/sockets" \
        --sync 6>&1 > /dev/null) || :
    like "$(cat exec-1.log)" 'inside argument 1000 /tmp'
    like "$said$(cat exec-exits/* 2>/dev/null)" 5
    runtime kill exec KILL
    is "$(exit_code exec)" 137
    runtime delete exec
}
case_killed_conmon() {
    bundle orphan 'c["process"]["args"] = ["sleep", "1000"]'
    create orphan
    runtime start orphan
    kill -9 "$(cat orphan.conmon-pid)"
    like "$(runtime state orphan)" '"running"'
    runtime delete --force orphan
}
run_cases
