#!/bin/bash
# memcached: text protocol over TCP, UDP off, a unix socket, several threads.
# packages: memcached netcat-openbsd
. "$(dirname "$0")/lib.sh.inc"
memcached -u root -l 127.0.0.1 -p 21211 -t 4 -m 64 & background+=($!)
ask() { printf '%b' "$1" | timeout 5 nc -N 127.0.0.1 21211 | tr -d '\r'; }
eventually sh -c "printf 'version\r\nquit\r\n' | timeout 2 nc -N 127.0.0.1 21211 | grep -q VERSION"
is "$(ask 'set k 0 0 5\r\nhello\r\nget k\r\nquit\r\n')" "STORED
VALUE k 0 5
hello
END"
for j in 1 2 3 4 5; do
    (for i in $(seq 200); do printf 'set k%d-%d 0 0 3\r\nabc\r\n' $j "$i"; done; printf 'quit\r\n') | timeout 10 nc -N 127.0.0.1 21211 > out$j &
done
for job in $(jobs -p); do [ "$job" = "${background[0]}" ] || wait "$job"; done
is "$(cat out* | grep -c STORED)" 1000
is "$(ask 'stats\r\nquit\r\n' | grep -c 'STAT curr_items 1001')" 1
memcached -u root -s "$scratch/sock" -t 2 & background+=($!)
eventually test -S sock
is "$(printf 'set a 0 0 1\r\nx\r\nquit\r\n' | timeout 5 nc -N -U sock | tr -d '\r')" STORED
echo ok
