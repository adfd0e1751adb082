//! Guest test programs: each case asserts Linux behaviour from the man pages
//! and passes natively before it counts inside the sandbox.
//!
//! `guest list [PREFIX]`, `guest run NAME` (in this process),
//! `guest all [--timeout SECONDS] NAME|PREFIX…` (each case in a child with a
//! fresh directory; one report line per case).

#[macro_use]
mod util;
mod answers;
mod creds;
mod driver;
mod edges;
mod exec;
mod futex;
mod helpers;
mod hostile;
mod io;
mod ipc;
mod locks;
mod meta;
mod mm;
mod open;
mod patching;
mod pipes;
mod proc;
mod process;
mod ptrace;
mod seccomp;
mod signals;
mod sockets;
mod time;
mod tty;

/// Families by the first part of a case's name.
pub const FAMILIES: &[(&str, &[util::Case])] = &[
    ("process", process::CASES),
    ("exec", exec::CASES),
    ("signals", signals::CASES),
    ("futex", futex::CASES),
    ("mm", mm::CASES),
    ("open", open::CASES),
    ("io", io::CASES),
    ("meta", meta::CASES),
    ("edges", edges::CASES),
    ("locks", locks::CASES),
    ("pipes", pipes::CASES),
    ("time", time::CASES),
    ("ipc", ipc::CASES),
    ("sockets", sockets::CASES),
    ("tty", tty::CASES),
    ("creds", creds::CASES),
    ("proc", proc::CASES),
    ("seccomp", seccomp::CASES),
    ("ptrace", ptrace::CASES),
    ("hostile", hostile::CASES),
    ("patching", patching::CASES),
];

fn main() {
    std::process::exit(driver::main());
}
