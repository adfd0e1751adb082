#!/bin/bash
# ps, top, free, lsof, ip, mount, df, and others that read /proc and /sys.
# packages: procps lsof iproute2 util-linux psmisc
# platforms: systrap ptrace
. "$(dirname "$0")/lib.sh.inc"
sleep 321 & p=$!; background+=($p)
like "$(ps -ef)" "sleep 321"
is "$(ps -o comm= -p $p)" sleep
is "$(ps -o ppid= -p $p | tr -d ' ')" $$
like "$(ps aux | head -1)" "USER +PID +%CPU"
like "$(top -b -n 1 | head -5)" "Tasks:"
like "$(free -m)" "Mem: +[0-9]+"
uptime > /dev/null; w > /dev/null; vmstat > /dev/null
is "$(pgrep -f 'sleep 321')" $p
exec 7> held
like "$(lsof -p $$)" "held"
like "$(ip addr)" "127.0.0.1/8"
like "$(ip -6 addr show lo; ip link)" "LOOPBACK"
like "$(mount)" "proc on /proc"
df / > /dev/null
like "$(findmnt -n /proc)" proc
like "$(lscpu)" x86_64
pkill -f 'sleep 321'
eventually sh -c "! kill -0 $p"
like "$(pstree $$ 2>/dev/null || echo bash)" bash
is "$(flock held echo locked)" locked
is "$(setsid echo own)" own
like "$(prlimit --nofile | tail -1)" NOFILE
is "$(unshare -u sh -c 'hostname x && hostname')" x
is "$(unshare -m sh -c 'mount -t tmpfs t /mnt && touch /mnt/f && ls /mnt')" f
is "$(taskset 1 nproc)" 1
hostname > /dev/null; uname -a > /dev/null; whoami > /dev/null; id > /dev/null; tty || :
like "$(getent hosts localhost)" localhost
script -qc 'tty' /dev/null | grep -q /dev/pts
ss -tln > /dev/null
echo ok
