#!/bin/bash
# coreutils, find, grep, sed, awk, tar, gzip, xz, and rsync of 5,000 files.
# packages: coreutils findutils grep sed gawk tar gzip bzip2 xz-utils zstd rsync diffutils patch file bc
# platforms: systrap ptrace
# timeout: 90
. "$(dirname "$0")/lib.sh.inc"
mkdir tree
for d in $(seq 50); do
    mkdir -p "tree/dir$d/sub"
    for f in $(seq 50); do echo "file $d $f" > "tree/dir$d/f$f"; done
    for f in $(seq 50); do echo "more $((d*f))" > "tree/dir$d/sub/g$f.txt"; done
done
is "$(find tree -type f | wc -l)" 5000
ln -s dir1/f1 tree/link; ln tree/dir1/f2 tree/hard; chmod 4711 tree/dir1/f3; touch -d 2001-02-03 tree/dir1/f4
# rsync: copy, then nothing to do, then a change.
rsync -aH tree/ copy/
is "$(diff -r tree copy && echo same)" same
is "$(rsync -aHi tree/ copy/ | wc -l)" 0
echo changed > tree/dir7/f7; rm tree/dir8/f8
rsync -aH --delete tree/ copy/
is "$(cat copy/dir7/f7)" changed
test ! -e copy/dir8/f8
is "$(stat -c %a copy/dir1/f3)" 4711
is "$(stat -c %h copy/hard)" 2
is "$(date -r copy/dir1/f4 +%F)" 2001-02-03
# Archives.
for z in gzip bzip2 xz zstd; do
    tar -I $z -cf a.tar.$z tree
    mkdir x; tar -I $z -xf a.tar.$z -C x
    diff -r tree x/tree
    rm -r x
done
# Text tools.
is "$(grep -r 'file 3 ' tree | wc -l)" 50
is "$(grep -rlE 'more (10|20)$' tree | wc -l)" "$(find tree -name 'g*.txt' -exec grep -lE 'more (10|20)$' {} + | wc -l)"
is "$(find tree -name 'f1*' -newermt 2000-01-01 | wc -l)" 550
is "$(find tree -size -1k -empty | wc -l)" 0
is "$(find tree -type d -links +1 -name sub | wc -l)" 50
is "$(find tree -perm 4711)" tree/dir1/f3
is "$(cat tree/dir*/f1 | awk '{s += $2} END {print s}')" 1275
is "$(gawk 'BEGIN { "echo co" | getline x; print toupper(x) }')" CO
sed -i 's/file/FILE/' tree/dir1/f*
is "$(cat tree/dir1/f* | grep -c FILE)" 50
is "$(seq 100000 | sort -R | sort -n | sha256sum | cut -c1-16)" "$(seq 100000 | sha256sum | cut -c1-16)"
is "$(seq 10 | split -l 3 - part; cat part* | wc -l)" 10
is "$(printf 'a b\n' | tee t1 t2 | cut -d' ' -f2)" b
is "$(comm -12 <(seq 5) <(seq 3 9) | xargs)" "3 4 5"
is "$(paste -sd+ <(seq 10) | bc)" 55
is "$(dd if=/dev/zero bs=1M count=20 2>/dev/null | wc -c)" 20971520
is "$(head -c 1000 /dev/urandom | base64 | base64 -d | wc -c)" 1000
cp -a tree/dir1 cp1; is "$(stat -c %a cp1/f3)" 4711
mv cp1 cp2; test -d cp2
install -D -m 640 t1 in/a/b/c; is "$(stat -c %a in/a/b/c)" 640
truncate -s 1G sparse; is "$(du -k sparse | cut -f1)" 0
cp --sparse=always sparse sparse2; is "$(stat -c %s sparse2)" 1073741824
printf 'one\ntwo\n' > p1; printf 'one\n2\n' > p2
diff -u p1 p2 > p.diff || :
patch -s p1 p.diff; cmp p1 p2
like "$(file p1)" "ASCII text"
is "$(readlink -f tree/link)" "$scratch/tree/dir1/f1"
is "$(realpath --relative-to=tree tree/dir1/sub)" dir1/sub
is "$(stat -f -c %T /proc)" proc
is "$(nproc --all)" "$(getconf _NPROCESSORS_CONF)"
test "$(nproc)" -le "$(getconf _NPROCESSORS_ONLN)"
df . > /dev/null; df -h / > /dev/null
is "$(timeout 1 tail -f /dev/null || echo $?)" 124
(sleep 0.3; echo added >> log) & 
: > log
is "$(timeout 5 tail -n +1 -f log | head -1)" added
wait
chown 1234:4321 p1; is "$(stat -c %u:%g p1)" 1234:4321
mkfifo fifo; cat fifo > out & echo through > fifo; wait; is "$(cat out)" through
is "$(env -i A=1 env)" A=1
is "$(nice -n 5 nice)" 5
is "$(id -un)" root
sync .; rm -rf tree copy
is "$(ls -A | grep -c tree)" 0
echo ok
