#!/bin/bash
# gcc and make -j: a C project of many files with a library, tests and debug info.
# packages: gcc make libc6-dev
# timeout: 120
. "$(dirname "$0")/lib.sh.inc"
mkdir src include
for i in $(seq 40); do
    cat > src/m$i.c <<X
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <math.h>
#include "all.h"
static int cmp(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }
int f$i(int n)
{
	int v[100], s = 0;
	for (int k = 0; k < 100; k++) v[k] = (k * 7919 + $i) % 101;
	qsort(v, 100, sizeof *v, cmp);
	for (int k = 0; k < 100; k++) s += v[k] * (k % 3);
	char b[64];
	snprintf(b, sizeof b, "%d-%.3f", s, sqrt(n));
	return (int)strlen(b) + $i;
}
X
    echo "int f$i(int);" >> include/all.h
done
{
    echo '#include <stdio.h>'; echo '#include "all.h"'; echo 'int main(void) { int s = 0;'
    for i in $(seq 40); do echo "s += f$i($i);"; done
    echo 'printf("%d\n", s); return 0; }'
} > src/main.c
cat > Makefile <<'X'
CFLAGS = -O2 -g -Wall -Iinclude -fPIC
OBJ = $(patsubst src/%.c,obj/%.o,$(filter-out src/main.c,$(wildcard src/*.c)))
all: prog prog-static
obj/%.o: src/%.c include/all.h | obj
	$(CC) $(CFLAGS) -c -o $@ $<
obj:
	mkdir -p obj
libm.a: $(OBJ)
	ar rcs $@ $^
libm.so: $(OBJ)
	$(CC) -shared -o $@ $^ -lm
prog: obj/main.o libm.so
	$(CC) -o $@ obj/main.o -L. -l:libm.so -Wl,-rpath,$(CURDIR) -lm
prog-static: obj/main.o libm.a
	$(CC) -static -o $@ obj/main.o libm.a -lm
X
make -s -j4
a=$(./prog); b=$(./prog-static)
is "$a" "$b"
like "$a" '^[0-9]+$'
is "$(make -s -j4; echo $?)" 0
touch include/all.h
is "$(make -n | grep -c 'gcc\|cc ')" 44 || :
make -s -j8
is "$(./prog)" "$a"
make -s -B -j2 prog
is "$(./prog)" "$a"
echo 'int main(void) { return x; }' > bad.c
if gcc bad.c 2> errors; then exit 1; fi
grep -q "undeclared" errors
gcc -fsanitize=undefined -o /dev/null -x c - <<< 'int main(void) { return 0; }' || :
echo ok
