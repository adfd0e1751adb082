//! Takes everything from the process that serving does not need.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags,
};
use rustix::process::{DumpableBehavior, Resource, Rlimit};
use rustix::thread::{CapabilitySet, CapabilitySets, UnshareFlags};

use crate::host::ProcFd;
use crate::{Access, Root, seccomp};

/// The capabilities of a serving gofer, as far as its starter had them.
pub const CAPABILITIES: CapabilitySet = CapabilitySet::CHOWN // give new files their owner
    .union(CapabilitySet::DAC_OVERRIDE) // read and write any owner's files
    .union(CapabilitySet::DAC_READ_SEARCH) // search any owner's directories
    .union(CapabilitySet::FOWNER) // change modes and times, sticky directories
    .union(CapabilitySet::FSETID); // keep set-id bits that guests set

/// Confinement failed; the process must not serve.
#[derive(Debug, thiserror::Error)]
pub enum ConfineError {
    #[error("cannot {what} to confine the gofer: {error}")]
    Host { what: &'static str, error: Errno },
    #[error("cannot install the gofer's seccomp filter: {0}")]
    Seccomp(String),
}

fn host(what: &'static str) -> impl FnOnce(Errno) -> ConfineError {
    move |error| ConfineError::Host { what, error }
}

/// Confines this process, which must have one thread only:
///
/// 1. `roots` become private clones of their mounts without set-id programs
///    and devices, read-only where they are to be (where the host allows it;
///    the server checks access itself as well);
/// 2. own mount namespace whose root is an empty read-only tmpfs;
/// 3. no capabilities but [`CAPABILITIES`], no groups, no new privileges, no
///    core dumps, not traceable;
/// 4. no host calls but those of [`seccomp`].
///
/// It needs `CAP_SYS_ADMIN` over its mount namespace. Closing other fds than
/// those it serves with is the caller's business.
pub fn confine(roots: &mut [Root]) -> Result<ProcFd, ConfineError> {
    let proc_fd = ProcFd::open().map_err(host("open /proc/self/fd"))?;
    for root in roots.iter_mut() {
        clone_mounts(root);
    }
    leave_mounts()?;
    drop_privileges()?;
    prepare_allocator();
    seccomp::install(proc_fd.as_fd().as_raw_fd())
        .map_err(|error| ConfineError::Seccomp(error.to_string()))?;
    Ok(proc_fd)
}

/// Keeps the C library's allocator to its main arena: once it has more, it
/// reads the number of CPUs from /sys and the overcommit policy from /proc,
/// which the list of host calls answers with death.
#[expect(unsafe_code, reason = "no wrapper of mallopt exists")]
fn prepare_allocator() {
    // SAFETY: sets a number of the allocator under its own lock.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

/// Replaces a root by a restricted clone of its mounts. Roots from another
/// mount namespace can't be cloned: they stay what they are.
fn clone_mounts(root: &mut Root) {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE
        | OpenTreeFlags::AT_EMPTY_PATH;
    let Ok(clone) = rustix::mount::open_tree(&root.fd, c"", flags) else {
        return;
    };
    let mut attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    if root.access == Access::ReadOnly {
        attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
    }
    if set_mount_attributes(clone.as_fd(), attributes).is_ok() {
        root.fd = clone;
    }
}

/// `mount_setattr(2)` on a whole detached tree.
#[expect(unsafe_code, reason = "no wrapper of mount_setattr exists")]
fn set_mount_attributes(tree: BorrowedFd<'_>, set: MountAttrFlags) -> Result<(), Errno> {
    let attributes = libc::mount_attr {
        attr_set: u64::from(set.bits()),
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: path and attributes are valid for the call, the size is theirs.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        let error = std::io::Error::last_os_error().raw_os_error();
        Err(Errno::from_raw_os_error(error.unwrap_or(libc::EIO)))
    }
}

/// Moves to a mount namespace that holds an empty directory and nothing else.
fn leave_mounts() -> Result<(), ConfineError> {
    use rustix::mount;

    #[expect(
        deprecated,
        reason = "the mount namespace and cwd alone: no memory is involved"
    )]
    rustix::thread::unshare(UnshareFlags::NEWNS | UnshareFlags::FS)
        .map_err(host("make a mount namespace"))?;
    mount::mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )
    .map_err(host("make mounts private"))?;

    let tmpfs = mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).map_err(host("open tmpfs"))?;
    for (key, value) in [("size", "4k"), ("nr_inodes", "1"), ("mode", "0555")] {
        mount::fsconfig_set_string(&tmpfs, key, value).map_err(host("configure tmpfs"))?;
    }
    mount::fsconfig_create(&tmpfs).map_err(host("make a tmpfs"))?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let empty = mount::fsmount(&tmpfs, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        .map_err(host("mount a tmpfs"))?;
    // Any directory will do; this one was there a moment ago.
    mount::move_mount(
        &empty,
        c"",
        CWD,
        c"/proc",
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )
    .map_err(host("attach a tmpfs"))?;
    rustix::process::fchdir(&empty).map_err(host("enter the empty root"))?;
    match rustix::process::pivot_root(".", ".") {
        Ok(()) => {
            mount::unmount(".", UnmountFlags::DETACH).map_err(host("leave the old root"))?;
            rustix::process::chdir("/").map_err(host("enter the empty root"))
        }
        // The initial ramfs can't be pivoted away from.
        Err(Errno::INVAL) => rustix::process::chroot(".").map_err(host("change to the empty root")),
        Err(error) => Err(host("pivot to the empty root")(error)),
    }
}

fn drop_privileges() -> Result<(), ConfineError> {
    use rustix::thread;

    // Refused where the user namespace has no group mapping: then there are
    // no groups to lose.
    let _ = thread::set_thread_groups(&[]);
    for bit in 0..64 {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        if CAPABILITIES.contains(capability) {
            continue;
        }
        match thread::remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // Behind the last capability of this kernel; or there is no
            // CAP_SETPCAP, and then no_new_privs alone must do.
            Err(Errno::INVAL | Errno::PERM) => break,
            Err(error) => return Err(host("empty the bounding set")(error)),
        }
    }
    thread::clear_ambient_capability_set().map_err(host("clear ambient capabilities"))?;
    let now = thread::capabilities(None).map_err(host("read capabilities"))?;
    let kept = CAPABILITIES & now.permitted;
    thread::set_capabilities(
        None,
        CapabilitySets {
            effective: kept,
            permitted: kept,
            inheritable: CapabilitySet::empty(),
        },
    )
    .map_err(host("drop capabilities"))?;
    thread::set_no_new_privs(true).map_err(host("set no_new_privs"))?;
    rustix::process::setrlimit(
        Resource::Core,
        Rlimit {
            current: Some(0),
            maximum: Some(0),
        },
    )
    .map_err(host("forbid core dumps"))?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(host("forbid tracing"))
}
