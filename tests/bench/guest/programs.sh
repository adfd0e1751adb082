#!/bin/bash
# Real programs, each timed as a whole.
#
#   programs.sh prepare ROW   makes its input below /data/in; natively, once
#   programs.sh run ROW       prints "ROW NANOSECONDS"
#
# For row R there may be prepare_R, setup_R (not timed), and work_R (timed);
# one that measures a rate itself says so with `report`. Work is done in
# /data/work, which is on the root file system.
set -eu
in=/data/in work=/data/work

report() { echo "$row $1"; reported=yes; }

# Waits until a command succeeds.
await() {
    for _ in {1..400}; do
        if "$@" > /dev/null 2>&1; then return 0; fi
        sleep 0.05
    done
    echo "gave up waiting: $*" >&2
    return 1
}

work_bash_1000() {
    for i in {1..250}; do
        /bin/true
        x=$(echo "$i")
        echo "$x" | cat > out
    done
}

prepare_make_100() {
    for i in {1..100}; do
        { echo '#include <stdio.h>'; echo '#include <stdlib.h>'; echo '#include <string.h>'
          for j in {1..20}; do echo "int f${i}_$j(int x) { char b[64]; snprintf(b, sizeof b, \"%d\", x); return atoi(b) + (int)strlen(b); }"; done
        } > "file$i.c"
    done
    echo 'int main(void) { return 0; }' > main.c
    printf 'all: main\nOBJECTS := $(patsubst %%.c,%%.o,$(wildcard *.c))\nmain: $(OBJECTS)\n\tgcc -o $@ $^\n%%.o: %%.c\n\tgcc -O1 -c -o $@ $<\n' > Makefile
}
setup_make_100() { cp -r $in/make-100/. .; }
work_make_100() { make -s -j2; }

prepare_git_5000() {
    git init -q
    for d in {1..100}; do
        mkdir "d$d"
        for f in {1..50}; do echo "content of $d and $f" > "d$d/f$f"; done
    done
    git add . && git -c user.name=b -c user.email=b@b commit -qm first
    for d in {1..100..2}; do for f in {1..50}; do echo "changed $d $f" > "d$d/f$f"; done; done
    git -c user.name=b -c user.email=b@b commit -qam second
}
work_git_5000() {
    git -c safe.directory='*' clone -q --no-hardlinks $in/git-5000 clone
    cd clone
    git status --short
    git checkout -q HEAD~1
}

prepare_tar_10000() {
    for d in {1..100}; do
        mkdir "d$d"
        for f in {1..100}; do printf '%01000d' $f > "d$d/f$f"; done
    done
    tar cf ../tar-10000.tar . && rm -rf d*
}
work_tar_10000() { tar xf $in/tar-10000.tar; }

work_find_files() { find /data/tree > out; }

work_python_pass() { for _ in {1..10}; do python3 -c pass; done; }
work_node_0() { for _ in {1..3}; do node -e 0; done; }

prepare_compileall() {
    cp "$(python3 -c 'import os; print(os.path.dirname(os.__file__))')"/*.py .
}
setup_compileall() { cp -r $in/compileall/. .; }
work_compileall() { python3 -m compileall -q . > /dev/null || true; }

work_sqlite_100k() {
    { echo 'create table t(a integer primary key, b text); begin;'
      for i in {1..100000}; do echo "insert into t(b) values('row number $i');"; done
      echo 'commit; select count(*) from t;'; } > in.sql
    local start=${EPOCHREALTIME/./}
    [ "$(sqlite3 test.db < in.sql)" = 100000 ]
    report $(( (${EPOCHREALTIME/./} - start) * 1000 ))
}

redis() {
    redis-server --save '' --appendonly no --port 6390 --bind 127.0.0.1 > server.log &
    server=$!
    await redis-cli -p 6390 ping
    redis-benchmark -p 6390 -c 50 -n "$2" -q --csv -t "$1" > out
    kill $server; wait $server || true
    report "$(awk -F'"' 'NR > 1 { rate = $4 } END { if (rate + 0 <= 0) exit 1; printf "%.1f\n", 1e9 / rate }' out)"
}
work_redis_set() { redis set 30000; }
work_redis_get() { redis get 30000; }

prepare_memcached() { command -v memcached memcaslap > /dev/null; }
work_memcached() {
    memcached -u nobody -l 127.0.0.1 -p 11390 -t 2 > server.log 2>&1 &
    server=$!
    await bash -c '< /dev/tcp/127.0.0.1/11390'
    memcaslap -s 127.0.0.1:11390 -T 1 -c 16 -t 3s -X 100 > out
    kill $server; wait $server || true
    report "$(awk '/^Run time:/ { rate = $7 } END { if (rate + 0 <= 0) exit 1; printf "%.1f\n", 1e9 / rate }' out)"
}

work_nginx_wrk() {
    head -c 1024 /dev/zero | tr '\0' x > file
    printf 'daemon off; user root; worker_processes 1; pid %s/pid; error_log %s/log;\nevents {}\nhttp { access_log off; server { listen 127.0.0.1:8390; root %s; } }\n' $PWD $PWD $PWD > conf
    nginx -c $PWD/conf -e $PWD/log &
    server=$!
    await bash -c '< /dev/tcp/127.0.0.1/8390'
    wrk -t1 -c16 -d2s http://127.0.0.1:8390/file > out
    kill $server; wait $server || true
    grep -q 'Non-2xx' out && return 1
    report "$(awk '/Requests.sec/ { printf "%.1f\n", 1e9 / $2; found = 1 } END { exit !found }' out)"
}

as_nobody() { exec setpriv --reuid 65534 --regid 65534 --clear-groups "$@"; }
work_pgbench() {
    local pg; pg=$(echo /usr/lib/postgresql/*/bin)
    chown 65534:65534 .
    export PATH=$pg:$PATH HOME=$PWD
    (as_nobody initdb -D db -U bench --no-sync > log 2>&1)
    as_nobody postgres -D db -k $PWD -c listen_addresses= -c fsync=off > server.log 2>&1 &
    server=$!
    await psql -h $PWD -U bench -c 'select 1' postgres
    pgbench -h $PWD -U bench -i -s 2 -q postgres >> log 2>&1
    pgbench -h $PWD -U bench -c 4 -j 2 -T 2 postgres > out 2>> log
    kill -TERM $server; wait $server || true
    report "$(awk '/^tps = / { printf "%.1f\n", 1e9 / $3; found = 1 } END { exit !found }' out)"
}

work_sha256() { head -c 268435456 /dev/zero | sha256sum > out; }

prepare_openmp() {
    cat > omp.c <<'C'
#include <stdio.h>
int main(void) {
    double sum = 0;
    for (int round = 0; round < 400; round++) {
        #pragma omp parallel for reduction(+:sum)
        for (int i = 0; i < 200000; i++) sum += i * 0.5 + round;
    }
    printf("%f\n", sum);
    return 0;
}
C
    gcc -O2 -fopenmp -o omp omp.c
}
work_openmp() { $in/openmp/omp > out; }

prepare_javac() {
    for i in {1..30}; do
        { echo "import java.util.*; class C$i {"
          for j in {1..30}; do echo "static Map<String, List<Integer>> m$j(int x) { var m = new HashMap<String, List<Integer>>(); for (int i = 0; i < x; i++) m.computeIfAbsent(\"k\" + i, k -> new ArrayList<>()).add(i); return m; }"; done
          echo '}'; } > C$i.java
    done
}
work_javac() { javac -d . $in/javac/*.java; }

prepare_java_gc() {
    cat > Gc.java <<'JAVA'
import java.util.*;
class Gc {
    public static void main(String[] a) {
        Object[] keep = new Object[100000];
        long sum = 0;
        for (int i = 0; i < 20000000; i++) {
            byte[] b = new byte[16 + (i & 127)];
            keep[i % keep.length] = b;
            sum += b.length;
        }
        System.out.println(sum);
    }
}
JAVA
    javac Gc.java
}
work_java_gc() { java -Xmx256m -cp $in/java-gc Gc > out; }

prepare_go_gc() {
    cat > gc.go <<'GO'
package main

type node struct{ left, right *node }

func tree(depth int) *node {
	if depth == 0 {
		return &node{}
	}
	return &node{tree(depth - 1), tree(depth - 1)}
}
func (n *node) count() int {
	if n.left == nil {
		return 1
	}
	return 1 + n.left.count() + n.right.count()
}
func main() {
	keep := tree(18)
	total := 0
	for i := 0; i < 60; i++ {
		total += tree(15).count()
	}
	println(total, keep.count())
}
GO
    GOCACHE=$PWD/cache GOPATH=$PWD/path GO111MODULE=off GOTOOLCHAIN=local CGO_ENABLED=0 go build -o gc gc.go
    rm -rf cache path
}
work_go_gc() { $in/go-gc/gc 2> out; }

row=$2
name=${row//-/_}
is_function() { [ "$(type -t "$1")" = function ]; }
case $1 in
prepare)
    if is_function "prepare_$name"; then
        mkdir -p "$in/$row"; cd "$in/$row"
        "prepare_$name"
    fi ;;
run)
    rm -rf $work; mkdir -p $work; cd $work
    if is_function "setup_$name"; then "setup_$name"; fi
    reported=no
    start=${EPOCHREALTIME/./}
    "work_$name"
    took=$(( (${EPOCHREALTIME/./} - start) * 1000 ))
    [ $reported = yes ] || report $took
    cd /; rm -rf $work ;;
esac
