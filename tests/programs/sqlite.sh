#!/bin/bash
# sqlite3: journals, WAL, concurrent writers, integrity.
# packages: sqlite3
. "$(dirname "$0")/lib.sh.inc"
for mode in delete truncate wal; do
    db=$mode.db
    sqlite3 $db "pragma journal_mode=$mode; create table t(id integer primary key, v text);" > /dev/null
    for w in 1 2 3 4; do
        (for i in $(seq 10); do
            sqlite3 -cmd '.timeout 20000' $db "begin immediate; insert into t(v) select hex(randomblob(20)) from (values(1),(2),(3),(4),(5)); commit;"
        done) &
    done
    wait
    is "$(sqlite3 $db 'select count(*) from t')" 200
    is "$(sqlite3 $db 'pragma integrity_check')" ok
done
sqlite3 big.db "create table b as with recursive c(x) as (select 1 union all select x+1 from c where x < 200000) select x, x*x as y from c; create index i on b(y);"
is "$(sqlite3 big.db 'select sum(x) from b where y between 100 and 10000')" 5005
sqlite3 big.db vacuum
is "$(sqlite3 big.db .dump | sqlite3 copy.db; sqlite3 copy.db 'select count(*) from b')" 200000
# A killed writer leaves a usable database.
(sqlite3 big.db "begin; delete from b; select 1;" ".shell kill -9 \$PPID") 2>/dev/null > /dev/null || :
is "$(sqlite3 big.db 'select count(*) from b')" 200000
echo ok
