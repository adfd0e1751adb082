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

/// Families by the first part of a case's name; a family's cases may stand in
/// several files.
pub const FAMILIES: &[(&str, &[util::Case])] = &[
    ("process", process::wait::CASES),
    ("process", process::clone::CASES),
    ("process", process::pidfd::CASES),
    ("process", process::groups::CASES),
    ("exec", exec::arguments::CASES),
    ("exec", exec::files::CASES),
    ("exec", exec::script::CASES),
    ("exec", exec::kept::CASES),
    ("exec", exec::image::CASES),
    ("exec", exec::ids::CASES),
    ("signals", signals::actions::CASES),
    ("signals", signals::queue::CASES),
    ("signals", signals::restart::CASES),
    ("signals", signals::faults::CASES),
    ("signals", signals::frames::CASES),
    ("signals", signals::jobs::CASES),
    ("signals", signals::signalfd::CASES),
    ("signals", signals::timers::CASES),
    ("futex", futex::wait::CASES),
    ("futex", futex::requeue::CASES),
    ("futex", futex::shared::CASES),
    ("futex", futex::locks::CASES),
    ("futex", futex::waitv::CASES),
    ("mm", mm::map::CASES),
    ("mm", mm::protect::CASES),
    ("mm", mm::remap::CASES),
    ("mm", mm::advise::CASES),
    ("mm", mm::share::CASES),
    ("mm", mm::file::CASES),
    ("mm", mm::untouched::CASES),
    ("mm", mm::report::CASES),
    ("mm", mm::memfd::CASES),
    ("mm", mm::limits::CASES),
    ("mm", mm::access::CASES),
    ("open", open::flags::CASES),
    ("open", open::descriptors::CASES),
    ("open", open::paths::CASES),
    ("open", open::links::CASES),
    ("open", open::rename::CASES),
    ("open", open::special::CASES),
    ("io", io::read_write::CASES),
    ("io", io::size::CASES),
    ("io", io::copy::CASES),
    ("io", io::again::CASES),
    ("io", io::whole::CASES),
    ("io", io::other::CASES),
    ("meta", meta::attributes::CASES),
    ("meta", meta::owner::CASES),
    ("meta", meta::access::CASES),
    ("meta", meta::xattr::CASES),
    ("meta", meta::directory::CASES),
    ("edges", edges::CASES),
    ("locks", locks::advisory::CASES),
    ("locks", locks::inotify::CASES),
    ("pipes", pipes::pipe::CASES),
    ("pipes", pipes::poll::CASES),
    ("pipes", pipes::epoll::CASES),
    ("pipes", pipes::eventfd::CASES),
    ("time", time::clocks::CASES),
    ("time", time::timers::CASES),
    ("time", time::timerfd::CASES),
    ("ipc", ipc::shm::CASES),
    ("ipc", ipc::sem::CASES),
    ("ipc", ipc::msg::CASES),
    ("ipc", ipc::mq::CASES),
    ("sockets", sockets::unix::CASES),
    ("sockets", sockets::messages::CASES),
    ("sockets", sockets::options::CASES),
    ("sockets", sockets::tcp::CASES),
    ("sockets", sockets::inet6::CASES),
    ("sockets", sockets::udp::CASES),
    ("sockets", sockets::netlink::CASES),
    ("tty", tty::discipline::CASES),
    ("tty", tty::jobs::CASES),
    ("tty", tty::pty::CASES),
    ("creds", creds::ids::CASES),
    ("creds", creds::capabilities::CASES),
    ("creds", creds::limits::CASES),
    ("creds", creds::prctl::CASES),
    ("creds", creds::namespaces::CASES),
    ("proc", proc::system::CASES),
    ("proc", proc::task::CASES),
    ("proc", proc::files::CASES),
    ("proc", proc::mounts::CASES),
    ("seccomp", seccomp::CASES),
    ("ptrace", ptrace::stops::CASES),
    ("ptrace", ptrace::registers::CASES),
    ("ptrace", ptrace::events::CASES),
    ("hostile", hostile::entry::CASES),
    ("hostile", hostile::memory::CASES),
    ("hostile", hostile::state::CASES),
    ("patching", patching::calls::CASES),
    ("patching", patching::text::CASES),
    ("patching", patching::debuggers::CASES),
];

fn main() {
    std::process::exit(driver::main());
}
