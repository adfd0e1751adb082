#!/bin/bash
# redis-server with redis-cli and redis-benchmark, persistence by fork.
# packages: redis-server redis-tools
# timeout: 120
. "$(dirname "$0")/lib.sh.inc"
redis-server --port 16379 --dir "$scratch" --save "" --appendonly yes --unixsocket "$scratch/sock" > log 2>&1 & background+=($!)
cli() { redis-cli -p 16379 "$@"; }
eventually cli ping
is "$(cli set k v)" OK
is "$(cli get k)" v
is "$(redis-cli -s sock incr n)" 1
for i in $(seq 300); do echo "set key$i value$i"; done | cli --pipe > /dev/null 2>&1 || for i in $(seq 300); do echo "set key$i value$i"; done | cli > /dev/null
is "$(cli dbsize)" 302
redis-benchmark -p 16379 -n 5000 -c 20 -q -t set,get,lpush,incr > bench
is "$(grep -c 'requests per second' bench)" 4
is "$(cli eval 'return redis.call("get", KEYS[1])' 1 k)" v
is "$(cli bgsave)" "Background saving started"
eventually sh -c "redis-cli -p 16379 info persistence | grep -q 'rdb_bgsave_in_progress:0'"
cli info persistence | grep -q 'rdb_last_bgsave_status:ok'
test -s dump.rdb
(cli --csv subscribe chan > sub & echo $! > subpid; wait) &
eventually sh -c "redis-cli -p 16379 pubsub numsub chan | tail -1 | grep -q 1"
cli publish chan message > /dev/null
eventually grep -q message sub
kill "$(cat subpid)"
cli shutdown nosave || :
wait "${background[0]}" || :
redis-server --port 16379 --dir "$scratch" --save "" --appendonly yes > log2 2>&1 & background+=($!)
eventually sh -c 'redis-cli -p 16379 ping | grep -q PONG'
is "$(cli get key77)" value77
echo ok
