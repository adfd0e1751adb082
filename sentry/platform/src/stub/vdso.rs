//! The guest's vDSO: every function jumps into the host's vDSO, which is in
//! every stub at the same place, through a table in the global page.
//!
//! A host vDSO function that can't answer by itself makes a system call there,
//! which traps like any other; so does a function here for which the host has
//! none (its entry in the table is 0).
#![no_std]
#![no_main]

use core::arch::global_asm;

#[expect(dead_code, reason = "constants of the stub")]
mod layout;

use layout::{G_VDSO_TABLE, GLOBAL};

macro_rules! forward {
    ($index:literal, $name:literal, $alias:literal, $number:literal) => {
        global_asm!(
            concat!(".pushsection .text.", $name, ",\"ax\",@progbits"),
            concat!(".global ", $name),
            concat!(".type ", $name, ",@function"),
            concat!(".weak ", $alias),
            concat!(".type ", $alias, ",@function"),
            ".balign 16",
            concat!($name, ":"),
            concat!($alias, ":"),
            ".cfi_startproc",
            "endbr64",
            "movabs rax, {table} + {index} * 8",
            "mov rax, [rax]",
            "test rax, rax",
            "jz 2f",
            "jmp rax",
            "2:",
            "mov eax, {number}",
            "syscall",
            "ret",
            ".cfi_endproc",
            concat!(".size ", $name, ", . - ", $name),
            concat!(".size ", $alias, ", . - ", $alias),
            ".popsection",
            table = const GLOBAL + G_VDSO_TABLE,
            index = const $index,
            number = const $number,
        );
    };
}

// In the order of `FUNCTIONS` in `systrap/vdso.rs`.
forward!(0, "__vdso_clock_gettime", "clock_gettime", 228);
forward!(1, "__vdso_gettimeofday", "gettimeofday", 96);
forward!(2, "__vdso_time", "time", 201);
forward!(3, "__vdso_getcpu", "getcpu", 309);
forward!(4, "__vdso_clock_getres", "clock_getres", 229);

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
