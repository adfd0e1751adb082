#!/bin/bash
# Garbage to every system call; the sandbox must survive.
# platforms: systrap ptrace
# native: no
# timeout: 90
. "$(dirname "$0")/lib.sh.inc"
"$STATIC_DIR/fuzz-syscalls" $([ "$LONG" = 1 ] && echo 120 || echo 8) "${FUZZ_SEED:-$(date +%s)}" > log || { tail -20 log >&2; exit 1; }
tail -1 log
