//! The stub: all host code that shares an address space with a guest.
//!
//! A freestanding static binary. `boot.rs` runs once in the zygote and makes
//! it a bare process; from then on only the assembly of `control.rs` (the
//! control thread) and `app.rs` (threads that run guest code) is used. That
//! assembly keeps no state outside registers and its own context, and touches
//! no vector register.
#![no_std]
#![no_main]

mod app;
mod boot;
mod control;
#[expect(dead_code, reason = "the sentry's half of the constants")]
mod layout;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    boot::exit(127)
}
