#!/bin/bash
# postgres: initdb, pgbench, crash recovery.
# packages: postgresql postgresql-contrib
# long
# timeout: 300
. "$(dirname "$0")/lib.sh.inc"
bin=$(echo /usr/lib/postgresql/*/bin)
export PATH=$bin:$PATH
chmod 755 "$scratch"
mkdir data run; chown postgres data run
pg() { setpriv --reuid postgres --regid postgres --clear-groups env HOME="$scratch" PATH="$PATH" "$@"; }
pg initdb -D "$scratch/data" -U postgres -A trust > init.log 2>&1 || { cat init.log >&2; exit 1; }
start() { (exec setpriv --reuid postgres --regid postgres --clear-groups postgres -D "$scratch/data" -k "$scratch/run" -p 15432 -c listen_addresses=127.0.0.1 > server.log 2>&1) & background+=($!); server=$!; }
start
q() { psql -U postgres -h "$scratch/run" -p 15432 -Atq -c "$1"; }
eventually q 'select 1'
is "$(q 'select 6*7')" 42
is "$(psql -U postgres -h 127.0.0.1 -p 15432 -Atqc 'select 1')" 1
pgbench -q -i -s 2 -U postgres -h "$scratch/run" -p 15432 postgres > bench.log 2>&1 || { cat bench.log >&2; exit 1; }
pgbench -U postgres -h "$scratch/run" -p 15432 -c 4 -j 2 -t 100 postgres > bench.log 2>&1 || { cat bench.log >&2; exit 1; }
grep -q 'number of transactions actually processed: 400/400' bench.log
n=$(q 'select count(*) from pgbench_history')
is "$n" 400
kill -QUIT $server; wait $server || :
start
eventually q 'select 1'
is "$(q 'select count(*) from pgbench_history')" 400
q 'create table big as select generate_series(1, 200000) x; create index on big(x)'
q 'vacuum analyze big'
is "$(q 'select sum(x) from big where x < 1000')" 499500
kill -INT $server; wait $server || :
echo ok
