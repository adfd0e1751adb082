//! Which files a process directory has, in the order Linux lists them.

use std::ops::Range;

use syscall_tables::Errno;

use super::{Query, Scope, memory, mounts, small, stat, status};
use crate::mm::Layout;
use crate::task::Task;
use crate::vfs::{FileKind, VfsPath};

pub(super) type TextFn = fn(&Query<'_>) -> Result<Vec<u8>, Errno>;
pub(super) type WriteFn = fn(&Query<'_>, &[u8], u64) -> Result<(), Errno>;

/// What a name leads to.
#[derive(Clone, Copy)]
pub(super) enum Body {
    Text(TextFn),
    Knob(TextFn, WriteFn),
    /// Strings of the initial stack.
    Arguments(fn(&Layout) -> Range<u64>),
    Memory,
    Mounts(TextFn),
    Link(fn(&Task) -> Result<VfsPath, Errno>),
    Fd,
    FdInfo,
    Tasks,
    Ns,
    Net,
}

/// When the right to look into the process is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Guard {
    None,
    Open,
    Use,
}

pub(super) struct Entry {
    pub name: &'static str,
    pub perm: u32,
    pub guard: Guard,
    /// Found in one kind of directory alone.
    pub only: Option<Scope>,
    /// Whether its content tells how much memory the process uses.
    pub tells_size: bool,
    pub body: Body,
}

impl Entry {
    pub const fn kind(&self) -> FileKind {
        match self.body {
            Body::Link(_) => FileKind::Symlink,
            Body::Fd | Body::FdInfo | Body::Tasks | Body::Ns | Body::Net => FileKind::Directory,
            _ => FileKind::Regular,
        }
    }

    const fn only(mut self, scope: Scope) -> Self {
        self.only = Some(scope);
        self
    }

    const fn with_size(mut self) -> Self {
        self.tells_size = true;
        self
    }
}

const fn new(name: &'static str, perm: u32, guard: Guard, body: Body) -> Entry {
    Entry {
        name,
        perm,
        guard,
        only: None,
        tells_size: false,
        body,
    }
}

const fn text(name: &'static str, content: TextFn) -> Entry {
    new(name, 0o444, Guard::None, Body::Text(content))
}

/// Readable by those who may look into the process when they open it.
const fn private(name: &'static str, perm: u32, content: TextFn) -> Entry {
    new(name, perm, Guard::Open, Body::Text(content))
}

/// Readable by those who may look into the process when they read it.
const fn guarded(name: &'static str, perm: u32, content: TextFn) -> Entry {
    new(name, perm, Guard::Use, Body::Text(content))
}

const fn knob(name: &'static str, perm: u32, content: TextFn, write: WriteFn) -> Entry {
    new(name, perm, Guard::None, Body::Knob(content, write))
}

const fn link(name: &'static str, target: fn(&Task) -> Result<VfsPath, Errno>) -> Entry {
    new(name, 0o777, Guard::None, Body::Link(target))
}

const fn dir(name: &'static str, perm: u32, body: Body) -> Entry {
    new(name, perm, Guard::None, body)
}

pub(super) static ENTRIES: &[Entry] = &[
    dir("task", 0o555, Body::Tasks).only(Scope::Process),
    dir("fd", 0o500, Body::Fd),
    dir("fdinfo", 0o555, Body::FdInfo),
    dir("ns", 0o511, Body::Ns),
    dir("net", 0o555, Body::Net),
    new(
        "environ",
        0o400,
        Guard::Open,
        Body::Arguments(|layout| layout.env.clone()),
    ),
    private("auxv", 0o400, memory::auxv),
    text("status", status::status).with_size(),
    guarded("personality", 0o400, small::personality),
    text("limits", small::limits),
    knob("sched", 0o644, small::sched, small::set_sched),
    knob("comm", 0o644, small::comm, small::set_comm),
    guarded("syscall", 0o400, small::syscall),
    new(
        "cmdline",
        0o444,
        Guard::None,
        Body::Arguments(|layout| layout.args.clone()),
    ),
    text("stat", stat::stat).with_size(),
    text("statm", memory::statm).with_size(),
    private("maps", 0o444, memory::maps),
    text("children", dirs_children).only(Scope::Thread),
    new("mem", 0o600, Guard::Open, Body::Memory),
    link("cwd", small::cwd),
    link("root", small::root),
    link("exe", small::exe),
    new("mounts", 0o444, Guard::None, Body::Mounts(mounts::mounts)),
    new(
        "mountinfo",
        0o444,
        Guard::None,
        Body::Mounts(mounts::mountinfo),
    ),
    new(
        "mountstats",
        0o400,
        Guard::None,
        Body::Mounts(mounts::mountstats),
    )
    .only(Scope::Process),
    private("smaps", 0o444, memory::smaps).with_size(),
    private("smaps_rollup", 0o444, memory::smaps_rollup).with_size(),
    private("pagemap", 0o400, small::pagemap),
    text("wchan", small::wchan),
    guarded("stack", 0o400, small::stack),
    text("schedstat", small::schedstat),
    text("cpuset", small::cpuset),
    text("cgroup", small::cgroup),
    text("oom_score", small::oom_score).with_size(),
    knob("oom_adj", 0o644, small::oom_adj, small::set_oom_adj),
    knob(
        "oom_score_adj",
        0o644,
        small::oom_score_adj,
        small::set_oom_score_adj,
    ),
    knob("loginuid", 0o644, small::loginuid, small::set_loginuid),
    text("sessionid", small::sessionid),
    knob(
        "coredump_filter",
        0o644,
        small::coredump_filter,
        small::set_coredump_filter,
    )
    .only(Scope::Process),
    guarded("io", 0o400, small::io),
    knob("uid_map", 0o644, small::uid_map, small::set_uid_map),
    knob("gid_map", 0o644, small::gid_map, small::set_gid_map),
    text("projid_map", small::projid_map),
    knob("setgroups", 0o644, small::setgroups, small::set_setgroups),
    text("timers", small::timers).only(Scope::Process),
    knob(
        "timerslack_ns",
        0o666,
        small::timerslack_ns,
        small::set_timerslack_ns,
    )
    .only(Scope::Process),
];

fn dirs_children(query: &Query<'_>) -> Result<Vec<u8>, Errno> {
    super::dirs::children(query)
}
