//! What `/proc/PID/mounts` and `/proc/PID/mountinfo` show (`proc(5)`).

use std::sync::Arc;

use super::shown::path_from;
use super::{FsState, Mount, MountFlags, VfsPath, dev_major, dev_minor};

/// Content of `/proc/PID/mounts` for a process with root and namespace `fs`.
pub fn mounts(fs: &FsState) -> Vec<u8> {
    let mut text = Vec::new();
    for (mount, place) in visible(fs) {
        escape(&mut text, mount.fs.source().as_bytes());
        text.push(b' ');
        escape(&mut text, &place);
        text.push(b' ');
        text.extend_from_slice(mount.fs.type_name().as_bytes());
        text.push(b' ');
        let readonly = mount.is_readonly();
        let mut options = mount_options(&mount, readonly);
        append_options(&mut options, &mount.fs.options());
        text.extend_from_slice(options.as_bytes());
        text.extend_from_slice(b" 0 0\n");
    }
    text
}

/// Content of `/proc/PID/mountinfo`.
pub fn mountinfo(fs: &FsState) -> Vec<u8> {
    let mut text = Vec::new();
    for (mount, place) in visible(fs) {
        let parent = mount.mountpoint().map_or(mount.id, |below| below.mount.id);
        let dev = mount.fs.dev();
        let head = format!(
            "{} {} {}:{} ",
            mount.id,
            parent,
            dev_major(dev),
            dev_minor(dev)
        );
        text.extend_from_slice(head.as_bytes());
        escape(&mut text, &root_in_fs(&mount));
        text.push(b' ');
        escape(&mut text, &place);
        text.push(b' ');
        let own_readonly = mount.flags().contains(MountFlags::RDONLY);
        text.extend_from_slice(mount_options(&mount, own_readonly).as_bytes());
        text.extend_from_slice(propagation_fields(&mount).as_bytes());
        let kind = format!(" - {} ", mount.fs.type_name());
        text.extend_from_slice(kind.as_bytes());
        escape(&mut text, mount.fs.source().as_bytes());
        let mut options = if mount.sb.is_readonly() { "ro" } else { "rw" }.to_owned();
        append_options(&mut options, &mount.fs.options());
        text.push(b' ');
        text.extend_from_slice(options.as_bytes());
        text.push(b'\n');
    }
    text
}

/// Mounts below the root of `fs` with the path of their mount point.
fn visible(fs: &FsState) -> Vec<(Arc<Mount>, Vec<u8>)> {
    let mut shown = Vec::new();
    for mount in fs.namespace.mounts() {
        let top = VfsPath {
            mount: mount.clone(),
            dentry: mount.root.clone(),
        };
        if let (place, true) = path_from(&fs.root, &top) {
            shown.push((mount, place));
        }
    }
    shown
}

/// The path of the mount's root inside its file system.
fn root_in_fs(mount: &Mount) -> Vec<u8> {
    let mut names = Vec::new();
    let mut at = mount.root.clone();
    while let (Some(parent), name) = at.parent_and_name() {
        names.push(name);
        at = parent;
    }
    let mut path = Vec::new();
    for name in names.iter().rev() {
        path.push(b'/');
        path.extend_from_slice(name);
    }
    if path.is_empty() {
        path.push(b'/');
    }
    if mount.root.is_removed() {
        path.extend_from_slice(b"//deleted");
    }
    path
}

fn mount_options(mount: &Mount, readonly: bool) -> String {
    let flags = mount.flags();
    let mut options = if readonly { "ro" } else { "rw" }.to_owned();
    let named = [
        (MountFlags::NOSUID, "nosuid"),
        (MountFlags::NODEV, "nodev"),
        (MountFlags::NOEXEC, "noexec"),
        (MountFlags::NOATIME, "noatime"),
        (MountFlags::NODIRATIME, "nodiratime"),
        (MountFlags::NOSYMFOLLOW, "nosymfollow"),
    ];
    for (flag, name) in named {
        if flags.contains(flag) {
            append_options(&mut options, name);
        }
    }
    if !flags.intersects(MountFlags::NOATIME | MountFlags::STRICTATIME) {
        append_options(&mut options, "relatime");
    }
    options
}

fn append_options(options: &mut String, more: &str) {
    if !more.is_empty() {
        options.push(',');
        options.push_str(more);
    }
}

fn propagation_fields(mount: &Mount) -> String {
    let propagation = mount.links.read().propagation.clone();
    let mut fields = String::new();
    if let Some(group) = &propagation.shared {
        fields.push_str(&format!(" shared:{}", group.id));
    }
    if let Some(group) = &propagation.master {
        fields.push_str(&format!(" master:{}", group.id));
    }
    if propagation.unbindable {
        fields.push_str(" unbindable");
    }
    fields
}

/// Blanks and backslashes are octal escapes in these files.
fn escape(text: &mut Vec<u8>, field: &[u8]) {
    if field.is_empty() {
        text.extend_from_slice(b"none");
    }
    for &byte in field {
        match byte {
            b' ' | b'\t' | b'\n' | b'\\' | b'#' => {
                text.extend_from_slice(format!("\\{byte:03o}").as_bytes());
            }
            byte => text.push(byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::tmpfs::{TmpFs, TmpFsOptions};
    use crate::vfs::Vfs;

    #[test]
    fn lines_look_like_linux() {
        let vfs = Vfs::new();
        let fs = TmpFs::new(
            vfs.next_dev(),
            &TmpFsOptions {
                source: "my disk".to_owned(),
                size_bytes: Some(1 << 20),
                ..TmpFsOptions::default()
            },
        );
        let sb = vfs.superblock(fs);
        let flags = MountFlags::NOSUID | MountFlags::RDONLY;
        let namespace = vfs.new_namespace(&sb, flags);
        let state = FsState::at_root_of(&namespace).expect("a new namespace has a root");
        assert_eq!(
            String::from_utf8_lossy(&mounts(&state)),
            "my\\040disk / tmpfs ro,nosuid,relatime,size=1024k 0 0\n"
        );
        assert_eq!(
            String::from_utf8_lossy(&mountinfo(&state)),
            "20 20 0:20 / / ro,nosuid,relatime - tmpfs my\\040disk rw,size=1024k\n"
        );
    }
}
