//! The user namespace of a container. Ids of the sandbox are those of the
//! host, as the gofer gives them; those of a container are mapped to them.

use std::fmt::Write;
use std::sync::Arc;

use anyhow::{Context, Result};
use sentry_kernel::task::{Creds, Gid, Uid, UserNamespace};

use crate::plan::{ContainerPlan, IdRange};

/// The namespace that `plan` asks for.
pub fn namespace(plan: &ContainerPlan) -> Result<Arc<UserNamespace>> {
    if plan.users.is_empty() {
        return Ok(UserNamespace::initial());
    }
    let root = Creds::root();
    let namespace = UserNamespace::new_child(&root).context("a user namespace can't be made")?;
    namespace
        .write_uid_map(&root, text(&plan.users).as_bytes())
        .context("linux.uidMappings is not a valid mapping")?;
    namespace
        .write_gid_map(&root, text(&plan.groups).as_bytes())
        .context("linux.gidMappings is not a valid mapping")?;
    Ok(namespace)
}

/// As `/proc/PID/uid_map` takes them.
fn text(ranges: &[IdRange]) -> String {
    let mut text = String::new();
    for range in ranges {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{} {} {}", range.inner, range.outer, range.count);
    }
    text
}

/// Who makes a container's files: its root, with all rights of the sandbox's.
pub fn maker(namespace: &UserNamespace) -> Creds {
    let uid = namespace.uid_to_kernel(0).unwrap_or(Uid::ROOT);
    let gid = namespace.gid_to_kernel(0).unwrap_or(Gid::ROOT);
    Creds {
        uid,
        euid: uid,
        suid: uid,
        fsuid: uid,
        gid,
        egid: gid,
        sgid: gid,
        fsgid: gid,
        ..Creds::root()
    }
}

/// The sandbox's uid of one of the container.
pub fn uid(namespace: &UserNamespace, uid: u32) -> Result<Uid> {
    let mapped = namespace.uid_to_kernel(uid);
    mapped.with_context(|| format!("uid {uid} is not in linux.uidMappings"))
}

/// The sandbox's gid of one of the container.
pub fn gid(namespace: &UserNamespace, gid: u32) -> Result<Gid> {
    let mapped = namespace.gid_to_kernel(gid);
    mapped.with_context(|| format!("gid {gid} is not in linux.gidMappings"))
}

/// Options of a file system with its `uid` and `gid` as the sandbox's.
pub fn options(namespace: &UserNamespace, data: &str) -> Result<String> {
    let options = data.split(',').map(|option| {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        // What is no number is the file system's to refuse.
        Ok(match (name, value.parse()) {
            ("uid", Ok(id)) => format!("uid={}", uid(namespace, id)?.0),
            ("gid", Ok(id)) => format!("gid={}", gid(namespace, id)?.0),
            _ => option.to_owned(),
        })
    });
    Ok(options.collect::<Result<Vec<_>>>()?.join(","))
}
