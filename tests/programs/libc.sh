#!/bin/bash
# The C library test, dynamic against glibc and against musl; static-PIE Rust.
# platforms: systrap ptrace
. "$(dirname "$0")/lib.sh.inc"
is "$("$STATIC_DIR/libc-glibc")" ok glibc
is "$("$STATIC_DIR/libc-musl")" ok musl
"$STATIC_DIR/guest" list | grep process/ > /dev/null
