//! Guest test programs: each case asserts Linux behaviour from the man pages
//! and passes natively before it counts inside the sandbox.
//!
//! `guest list [PREFIX]`, `guest run NAME` (in this process),
//! `guest all [--timeout SECONDS] NAME|PREFIX…` (each case in a child with a
//! fresh directory; one report line per case).

#[macro_use]
mod util;
mod driver;
mod helpers;
mod process;

/// Families by the first part of a case's name.
pub const FAMILIES: &[(&str, &[util::Case])] = &[("process", process::CASES)];

fn main() {
    std::process::exit(driver::main());
}
