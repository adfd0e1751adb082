#!/bin/bash
# strace of programs inside: calls, signals, children, statistics.
# packages: strace
# platforms: systrap ptrace
. "$(dirname "$0")/lib.sh.inc"
strace -o t1 cat /etc/hostname > /dev/null
grep -q '^execve("/.*cat", \["cat", "/etc/hostname"\]' t1
grep -q '^openat(AT_FDCWD, "/etc/hostname", O_RDONLY) = ' t1
grep -q '^+++ exited with 0 +++' t1
strace -f -o t2 sh -c 'echo a | cat; (exit 3); sleep 0.05 & wait' > /dev/null
like "$(grep -cE '(clone|fork|vfork)' t2)" '^[1-9]'
grep -q 'exited with 3' t2
grep -q 'SIGCHLD' t2
strace -c -o t3 ls / > /dev/null
grep -q 'total$' t3
is "$(strace -e trace=getppid -e inject=getppid:retval=77 -o t4 sh -c 'echo $PPID' )" 77
sleep 5 & p=$!
timeout 3 strace -p $p -o t5 & s=$!
eventually grep -qE 'nanosleep|restart_syscall' t5
kill -USR1 $p || :
wait $p || :
wait $s || :
grep -q 'SIGUSR1' t5
strace -e fault=openat:error=ENOENT:when=1+ -o t6 cat /etc/hostname 2> err || :
grep -q INJECTED t6
echo ok
