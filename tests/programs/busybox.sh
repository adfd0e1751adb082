#!/bin/bash
# busybox: its shell and applets.
# packages: busybox-static
# platforms: systrap ptrace
. "$(dirname "$0")/lib.sh.inc"
mkdir bin
busybox --install -s bin 2>/dev/null || for a in $(busybox --list); do ln -sf "$(command -v busybox)" "bin/$a"; done
cat > t.sh <<'X'
set -e
i=0; sum=0
while [ $i -lt 100 ]; do i=$((i+1)); sum=$((sum+i)); done
[ $sum = 5050 ]
echo one two three | awk '{print $2}'
printf 'b\na\nc\n' | sort | tr '\n' ' '; echo
seq 1 20 | grep 1 | wc -l
echo hello | sed s/l/L/g
echo hello | md5sum | cut -c1-8
mkdir -p x/y/z; touch x/a x/y/b x/y/z/c
find x -type f | sort
tar cf x.tar x && rm -r x && tar xf x.tar && ls x/y/z
echo data | gzip | gunzip
(sleep 0.1; echo late) & wait
trap 'echo trapped' USR1; kill -USR1 $$
cat <<H | head -n 1
here $((6*7))
H
ls / | grep -q etc && echo root
id -u
ps | grep -q "[t].sh" && echo ps
expr 6 \* 7
test -d /proc/self && echo proc
diff x/a x/y/b && echo same
date +%Y | grep -q 20 && echo date
echo abc | od -c | head -n 1
yes | head -n 3 | wc -l
X
out=$(PATH=$scratch/bin busybox sh t.sh)
is "$out" "two
a b c 
11
heLLo
b1946ac9
x/a
x/y/b
x/y/z/c
c
data
late
trapped
here 42
root
0
ps
42
proc
same
date
0000000   a   b   c  \n
3"
# Server and client of its own.
busybox httpd -f -p 127.0.0.1:18080 -h "$scratch" & background+=($!)
echo served > page
eventually busybox wget -q -O got http://127.0.0.1:18080/page
is "$(cat got)" served
echo ok
