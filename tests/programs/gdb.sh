#!/bin/bash
# gdb: breakpoints, stepping, backtraces, threads, attach, core-like inspection.
# packages: gdb gcc libc6-dev
# platforms: systrap ptrace
# timeout: 120
. "$(dirname "$0")/lib.sh.inc"
cat > t.c <<'X'
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
int global = 5;
int depth(int n) { if (n == 0) return global; return depth(n - 1) + 1; }
void *run(void *a) { sleep(100); return a; }
int main(int argc, char **argv)
{
	if (argc > 1) { pthread_t t; pthread_create(&t, 0, run, 0); puts("ready"); fflush(stdout); pthread_join(t, 0); }
	int r = depth(3);
	printf("result %d\n", r);
	if (r > 100) abort();
	return r;
}
X
gcc -g -O0 -pthread -o t t.c
export DEBUGINFOD_URLS=
g() { timeout 60 gdb -q -nx -batch "$@" 2>&1; }
out=$(g -ex 'break depth if n == 0' -ex run -ex bt -ex 'print global' -ex 'set var global = 40' -ex finish -ex continue ./t)
like "$out" "Breakpoint 1, depth \(n=0\)"
like "$out" "#4 .*main"
like "$out" "\\\$1 = 5"
like "$out" "Value returned is .* = 40"
like "$out" "result 43"
like "$out" "exited with code 053"
out=$(g -ex 'break main' -ex run -ex next -ex next -ex 'info locals' -ex stepi -ex 'info registers rip' -ex 'watch global' -ex 'set var global=6' -ex kill ./t)
like "$out" "r = [0-9]+"
like "$out" "rip .*main"
out=$(g -ex 'set var global=1' -ex 'break printf' -ex run -ex 'set var global=500' -ex up -ex 'set var r=500' -ex continue -ex bt ./t) 
like "$out" "SIGABRT"
./t threads > ready & p=$!; background+=($p)
eventually grep -q ready ready
out=$(g -p $p -ex 'info threads' -ex 'thread apply all bt 8' -ex detach)
like "$out" "2 +Thread"
like "$out" "run \(a="
kill -0 $p
echo ok
