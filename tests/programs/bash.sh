#!/bin/bash
# bash: pipes, subshells, traps, job control, here-documents, process substitution.
# packages: bash
# platforms: systrap ptrace
. "$(dirname "$0")/lib.sh.inc"
is "$(seq 1000 | sort -rn | head -1)" 1000
is "$( (cd /; pwd); (exit 3) || echo $?)" "/
3"
is "$(diff <(seq 3) <(seq 4) | tail -1)" "> 4"
is "$(tee >(wc -c > count) <<< hello)" hello
eventually test -s count
is "$(tr -d ' ' < count)" 6
is "$(cat <<-X
	indented $((2**10))
	X
)" "indented 1024"
# Traps.
is "$(bash -c 'trap "echo int" INT; trap "echo bye" EXIT; kill -INT $$; echo after')" "int
after
bye"
is "$(bash -c 'trap "echo chld" CHLD; sleep 0.05 & wait; wait; echo end' | sort -u)" "chld
end"
bash -c 'kill -TERM $$' || is $? 143
# Pipe status.
set +e
(exit 1) | (exit 2) | true
is "${PIPESTATUS[*]}" "1 2 0"
set -e
# Background jobs and wait.
pids=()
for i in 1 2 3 4 5; do (sleep 0.0$i; exit $i) & pids+=($!); done
for i in 1 2 3 4 5; do
    set +e; wait "${pids[i-1]}"; is $? $i; set -e
done
wait -n < /dev/null || :
# Job control.
out=$(bash -c 'set -m
sleep 100 & p=$!
kill -STOP %1; sleep 0.2; jobs | grep -c Stopped
bg %1 > /dev/null; sleep 0.1; jobs | grep -c Running
kill %1; wait $p 2>/dev/null; echo $?' 2>/dev/null)
is "$out" "1
1
143"
# Co-process.
coproc cat
echo through >&"${COPROC[1]}"
read -r line <&"${COPROC[0]}"
is "$line" through
exec {COPROC[1]}>&-
wait
# Arrays, arithmetic, globs, brace expansion, read with a time-out.
touch f{1..20}.txt
is "$(echo f1*.txt | wc -w)" 11
declare -A m=([a]=1 [b]=2)
is "$((m[a] + m[b]))" 3
if read -r -t 0.1 x < <(sleep 1); then exit 1; fi
mapfile -t lines < <(printf '%s\n' c a b)
is "${#lines[@]}" 3
is "$(ulimit -n 64; ulimit -n)" 64
is "$(umask 077; touch private; stat -c %a private)" 600
is "$(set -o noclobber; { echo x > f1.txt; } 2>/dev/null || echo refused)" refused
is "$(bash -c 'exec 3<>/dev/tcp/127.0.0.1/1' 2>&1 | tail -1 | grep -c 'Connection refused$')" 1
# Many processes.
is "$(for i in $(seq 200); do echo "$i" | cat; done | wc -l)" 200
is "$(seq 50 | xargs -P 4 -I{} sh -c 'echo {}' | wc -l)" 50
is "$(bash -c 'sleep 0.3 & disown; echo gone')" gone
is "$(timeout 0.2 sleep 5 || echo $?)" 124
is "$(time_out=$(TIMEFORMAT=%R; { time sleep 0.1; } 2>&1); echo "${time_out%.*}")" 0
echo ok
