//! Paths as programs are shown them.

use std::sync::Arc;

use super::VfsPath;

/// The path of `path` from `root`, and whether it is below `root` at all
/// (otherwise it starts at the top of its own tree). Removed names end in
/// ` (deleted)`.
pub fn path_from(root: &VfsPath, path: &VfsPath) -> (Vec<u8>, bool) {
    if path.is_anonymous() {
        return (path.dentry.name().to_vec(), false);
    }
    let deleted = path.dentry.is_removed();
    let mut names: Vec<Arc<[u8]>> = Vec::new();
    let mut at = path.clone();
    let reachable = loop {
        if at.same_place(root) {
            break true;
        }
        if let Some(below) = at.leave_mount() {
            at = below;
            continue;
        }
        if Arc::ptr_eq(&at.dentry, &at.mount.root) {
            break false;
        }
        let (parent, name) = at.dentry.parent_and_name();
        let Some(parent) = parent else {
            break false;
        };
        names.push(name);
        at.dentry = parent;
    };
    let mut shown = Vec::new();
    for name in names.iter().rev() {
        shown.push(b'/');
        shown.extend_from_slice(name);
    }
    if shown.is_empty() {
        shown.push(b'/');
    }
    if deleted {
        shown.extend_from_slice(b" (deleted)");
    }
    (shown, reachable)
}
