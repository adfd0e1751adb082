//! Takes everything from the sentry process that it does not need: its host
//! uid, its view of the host's files, processes and networks, and its
//! capabilities. The seccomp list follows at the end of
//! [`crate::boot::run`].

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid, chdir, geteuid, pivot_root, setgroups, setresgid, setresuid};
use sentry_platform::host::inet::HostNetwork;

use crate::network::{self, NetworkPlan};
use crate::user::{self, IdMap};

/// First host uid of sandboxes. Each sandbox has one of its own, far above
/// what distributions and subordinate id ranges hand out, so that no other
/// process and no other sandbox shares it.
const FIRST_UID: u32 = 0x7e00_0000;
const UIDS: u32 = 0x00ff_ffff;

/// Uid and gid that the sentry sees itself as (`nobody`).
const INSIDE_ID: u32 = 65534;

/// The host uid (and gid) of a sandbox, derived from its id.
pub fn sandbox_uid(id: &str) -> u32 {
    FIRST_UID + hash(id) % UIDS
}

/// FNV-1a: stable over versions, and good enough to spread ids.
fn hash(id: &str) -> u32 {
    id.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

/// The user and group of a sandbox, as this process would name them; `None`
/// if there is none to change to.
fn ids(id: &str) -> Option<(u32, u32)> {
    if user::is_host_root() {
        let own = sandbox_uid(id);
        return Some((own, own));
    }
    // Of the ids that a rootless engine has, containers rarely use the high.
    let users = IdMap::of_users().spare(hash(id))?;
    let groups = IdMap::of_groups().spare(hash(id))?;
    geteuid().is_root().then_some((users, groups))
}

/// Moves this single-threaded process into namespaces of its own, under an
/// unprivileged host uid, with an empty read-only file system as its root.
/// Capabilities inside the new user namespace remain until
/// [`drop_privileges`]. Answers the host's network if `plan` wants it.
pub fn enter(id: &str, plan: &NetworkPlan) -> Result<Option<HostNetwork>> {
    let mut network = None;
    if network::comes_first() {
        network = network::enter(plan)?;
    }
    if let Some((uid, gid)) = ids(id) {
        setgroups(&[]).context("supplementary groups can't be dropped")?;
        let gid = Gid::from_raw(gid);
        setresgid(gid, gid, gid).context("the sandbox's gid can't be taken")?;
        let uid = Uid::from_raw(uid);
        setresuid(uid, uid, uid).context("the sandbox's uid can't be taken")?;
        // Changing ids makes a process undumpable, which gives its
        // /proc/self/uid_map to root.
        nix::sys::prctl::set_dumpable(true).context("dumpable can't be set")?;
    }
    let outside_uid = nix::unistd::geteuid();
    let outside_gid = nix::unistd::getegid();
    unshare(CloneFlags::CLONE_NEWUSER).context(
        "a user namespace can't be made; check user.max_user_namespaces and, where AppArmor is \
         in use, kernel.apparmor_restrict_unprivileged_userns",
    )?;
    fs::write("/proc/self/setgroups", "deny").context("setgroups can't be denied")?;
    fs::write(
        "/proc/self/uid_map",
        format!("{INSIDE_ID} {outside_uid} 1\n"),
    )
    .context("the uid map can't be written")?;
    fs::write(
        "/proc/self/gid_map",
        format!("{INSIDE_ID} {outside_gid} 1\n"),
    )
    .context("the gid map can't be written")?;
    if network.is_none() {
        network = network::enter(plan)?;
    }
    let own_network = match network {
        Some(_) => CloneFlags::empty(),
        None => CloneFlags::CLONE_NEWNET,
    };
    unshare(
        CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS | own_network,
    )
    .context("namespaces can't be made")?;
    nix::unistd::sethostname("sandbox").context("the host name can't be set")?;
    empty_root()?;
    Ok(network)
}

/// Replaces the root by an empty read-only tmpfs.
fn empty_root() -> Result<()> {
    mount::<str, str, str, str>(None, "/", None, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None)
        .context("mounts can't be made private")?;
    let locked = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    // Any directory that every host has will do: it is only covered for us.
    let place = ["/proc", "/tmp", "/run"]
        .into_iter()
        .find(|place| Path::new(place).is_dir())
        .context("neither /proc nor /tmp nor /run is there to mount on")?;
    mount(
        Some("none"),
        place,
        Some("tmpfs"),
        locked,
        Some("size=0,nr_inodes=2,mode=555"),
    )
    .context("an empty root can't be mounted")?;
    chdir(place).context("the empty root can't be entered")?;
    pivot_root(".", ".").context("the root can't be changed")?;
    umount2(".", MntFlags::MNT_DETACH).context("the host's root can't be unmounted")?;
    mount::<str, str, str, str>(
        None,
        "/",
        None,
        locked | MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY,
        None,
    )
    .context("the empty root can't be made read-only")?;
    chdir("/").context("the empty root can't be entered")?;
    Ok(())
}

/// Gives up all capabilities for good and forbids gaining any.
pub fn drop_privileges() -> Result<()> {
    nix::sys::prctl::set_no_new_privs().context("no_new_privs can't be set")?;
    crate::sys::drop_all_capabilities().context("capabilities can't be dropped")?;
    nix::sys::prctl::set_dumpable(false).context("dumpable can't be cleared")?;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    ensure!(status.is_empty(), "the host's /proc is still reachable");
    Ok(())
}
