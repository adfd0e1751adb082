//! Path walks with permission checks (`path_resolution(7)`).
//!
//! A [`Walk`] holds no lock between steps. It allocates only for symlinks
//! and for names the dentry cache does not have. What [`resolve`] has walked
//! lately is in the [`PathCache`](super::path_cache::PathCache).

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bitflags::bitflags;
use syscall_tables::Errno;

use super::lookup::lookup;
use super::path_cache::{Before, Question};
use super::perm::{self, Access};
use super::{Dentry, Fd, FileKind, MountFlags, Vfs, VfsPath};
use crate::kernel::Kernel;
use crate::task::{Creds, Task};

/// Longest name of one component.
pub const NAME_MAX: usize = 255;
/// Longest path, with its NUL.
pub const PATH_MAX: usize = 4096;
/// Most symlinks followed in one walk.
const LINK_MAX: u32 = 40;

/// Where a path without leading slash starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    Cwd,
    Fd(Fd),
}

impl Start {
    /// From a `dirfd` argument, where `AT_FDCWD` is -100.
    pub const fn from_dirfd(dirfd: i32) -> Self {
        if dirfd == -100 {
            Self::Cwd
        } else {
            Self::Fd(Fd(dirfd))
        }
    }
}

bitflags! {
    /// How a walk treats its path.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct WalkFlags: u32 {
        /// Follow a symlink in the last component.
        const FOLLOW = 1;
        /// An empty path means the start itself (`AT_EMPTY_PATH`).
        const EMPTY_PATH = 2;
        const DIRECTORY = 4;
        /// The bits of `openat2`'s `resolve`.
        const NO_XDEV = 0x10;
        const NO_MAGICLINKS = 0x20;
        const NO_SYMLINKS = 0x40;
        const BENEATH = 0x80;
        const IN_ROOT = 0x100;
    }
}

/// Last component of a path that a call is about to create or remove.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Last {
    Name(Vec<u8>),
    Dot,
    DotDot,
    /// The path is nothing but slashes.
    Root,
}

/// A directory and the name in it.
pub struct ParentAndLast {
    pub parent: VfsPath,
    pub last: Last,
    /// Slashes follow the last component.
    pub trailing_slash: bool,
}

impl ParentAndLast {
    /// The name, or `other` for `.`, `..` and `/`.
    pub fn name(&self, other: Errno) -> Result<&[u8], Errno> {
        match &self.last {
            Last::Name(name) => Ok(name),
            _ => Err(other),
        }
    }
}

/// Resolves `path` for `task` to an existing object.
pub fn resolve(
    kernel: &Kernel,
    task: &Task,
    start: Start,
    path: &[u8],
    flags: WalkFlags,
) -> Result<VfsPath, Errno> {
    if let Some(known) = remembered(kernel, task, &task.creds_ref(), start, path, flags) {
        return known;
    }
    walk_and_remember(kernel, task, &task.creds(), start, path, flags)
}

/// As [`resolve`], with the rights of `creds`.
pub fn resolve_as(
    kernel: &Kernel,
    task: &Task,
    creds: &Creds,
    start: Start,
    path: &[u8],
    flags: WalkFlags,
) -> Result<VfsPath, Errno> {
    match remembered(kernel, task, creds, start, path, flags) {
        Some(known) => known,
        None => walk_and_remember(kernel, task, creds, start, path, flags),
    }
}

/// What the path cache knows.
fn remembered(
    kernel: &Kernel,
    task: &Task,
    creds: &Creds,
    start: Start,
    path: &[u8],
    flags: WalkFlags,
) -> Option<Result<VfsPath, Errno>> {
    let fs = task.fs_ref();
    let state = fs.state.read();
    let file;
    let at = match start {
        _ if path.first() == Some(&b'/') => &state.root,
        Start::Cwd => &state.cwd,
        Start::Fd(fd) => {
            file = task.files_ref().get_raw(fd).ok()?;
            &file.path
        }
    };
    let question = Question {
        root: &state.root,
        start: at,
        path,
        flags,
        creds,
    };
    if !question.is_plain() {
        return None;
    }
    kernel.vfs.paths.get(&question)
}

fn walk_and_remember(
    kernel: &Kernel,
    task: &Task,
    creds: &Creds,
    start: Start,
    path: &[u8],
    flags: WalkFlags,
) -> Result<VfsPath, Errno> {
    // Read before the walk looks at anything.
    let before = kernel.vfs.paths.before();
    Walk::for_task(&kernel.vfs, task, creds, start, path, flags)?.resolve_remembering(path, before)
}

/// Resolves all but the last component of `path` for `task`.
pub fn resolve_parent(
    kernel: &Kernel,
    task: &Task,
    start: Start,
    path: &[u8],
    flags: WalkFlags,
) -> Result<ParentAndLast, Errno> {
    let creds = task.creds();
    let mut walk = Walk::for_task(&kernel.vfs, task, &creds, start, path, flags)?;
    walk.parent(path)
}

/// One path resolution, which may go on over several links.
pub struct Walk<'a> {
    vfs: &'a Vfs,
    creds: &'a Creds,
    /// Who walks, for links that depend on it.
    caller: Option<&'a Task>,
    flags: WalkFlags,
    /// Not left by `..`.
    root: VfsPath,
    at: VfsPath,
    links: u32,
    /// The end is to be remembered.
    remembers: bool,
    /// How long what was found counts.
    until_ns: u64,
    /// The last component, as it was seen in its directory, with how often it
    /// had lost its place by then.
    seen: Option<(Arc<Dentry>, u32)>,
}

/// What a walk does with the last component.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Goal {
    Object,
    Parent,
}

enum Outcome {
    Object,
    Parent(Last, bool),
}

impl<'a> Walk<'a> {
    /// A walk from `at` below `root`.
    pub fn new(
        vfs: &'a Vfs,
        creds: &'a Creds,
        root: VfsPath,
        at: VfsPath,
        flags: WalkFlags,
    ) -> Self {
        let root = if flags.intersects(WalkFlags::BENEATH | WalkFlags::IN_ROOT) {
            at.clone()
        } else {
            root
        };
        Self {
            vfs,
            creds,
            caller: None,
            flags,
            root,
            at,
            links: 0,
            remembers: false,
            until_ns: u64::MAX,
            seen: None,
        }
    }

    /// As [`Self::resolve`], leaving what it found to the path cache.
    pub(super) fn resolve_remembering(
        &mut self,
        path: &[u8],
        before: Before,
    ) -> Result<VfsPath, Errno> {
        let question = Question {
            root: &self.root,
            start: &self.at,
            path,
            flags: self.flags,
            creds: self.creds,
        };
        if !self.vfs.paths.wants(&question) {
            return self.resolve(path);
        }
        let (root, start) = (self.root.clone(), self.at.clone());
        self.remembers = true;
        let found = self.resolve(path);
        if self.until_ns != 0
            && let Some((end, moves)) = self.end(&found)
        {
            let question = Question {
                root: &root,
                start: &start,
                path,
                flags: self.flags,
                creds: self.creds,
            };
            let paths = &self.vfs.paths;
            paths.put(&question, &end, moves, self.until_ns, before);
        }
        found
    }

    /// What to remember of a finished walk.
    fn end(&mut self, found: &Result<VfsPath, Errno>) -> Option<(VfsPath, u32)> {
        let seen = self.seen.take();
        match found {
            Ok(found) => {
                let leads_on = |kind| matches!(kind, FileKind::Directory | FileKind::Symlink);
                let moves = match seen {
                    Some((dentry, moves)) if Arc::ptr_eq(&dentry, &found.dentry) => moves,
                    // Moves of these and changes of mounts count for all paths.
                    _ if leads_on(found.inode_ref().ok()?.kind()) => found.dentry.moves(),
                    _ => return None,
                };
                Some((found.clone(), moves))
            }
            Err(Errno::ENOENT) => {
                let (dentry, moves) = seen.filter(|(dentry, _)| dentry.inode().is_none())?;
                let mount = self.at.mount.clone();
                Some((VfsPath { mount, dentry }, moves))
            }
            Err(_) => None,
        }
    }

    /// Notes how long `child`, found as `name` here, counts.
    fn note(&mut self, name: &[u8], child: &Arc<Dentry>, is_end: bool) {
        if self.at.mount.sb.revalidate && !child.is_mountpoint() {
            let until = self
                .at
                .inode_ref()
                .map_or(0, |dir| dir.name_valid_until_ns(name, child.inode()));
            self.until_ns = self.until_ns.min(until);
        }
        if is_end {
            let moves = child.moves();
            let known = self.at.dentry.cached_child(name);
            let still = known.is_some_and(|known| Arc::ptr_eq(&known, child));
            self.seen = still.then(|| (child.clone(), moves));
        }
    }

    /// A walk of `path` for `task`.
    pub fn for_task(
        vfs: &'a Vfs,
        task: &'a Task,
        creds: &'a Creds,
        start: Start,
        path: &[u8],
        flags: WalkFlags,
    ) -> Result<Self, Errno> {
        if path.is_empty() && !flags.contains(WalkFlags::EMPTY_PATH) {
            return Err(Errno::ENOENT);
        }
        let scoped = flags.intersects(WalkFlags::BENEATH | WalkFlags::IN_ROOT);
        let absolute = path.first() == Some(&b'/') && !scoped;
        let fs = task.fs();
        let (root, at) = match start {
            Start::Fd(fd) if !absolute => {
                let at = task.files().get_raw(fd)?.path.clone();
                let is_dir = at.inode_ref()?.kind() == FileKind::Directory;
                if !path.is_empty() && !is_dir {
                    return Err(Errno::ENOTDIR);
                }
                (fs.state.read().root.clone(), at)
            }
            _ => {
                let state = fs.state.read();
                let at = if absolute { &state.root } else { &state.cwd };
                (state.root.clone(), at.clone())
            }
        };
        let mut walk = Self::new(vfs, creds, root, at, flags);
        walk.caller = Some(task);
        Ok(walk)
    }

    /// Where the walk stands.
    pub fn position(&self) -> &VfsPath {
        &self.at
    }

    /// Walks `path` to its end.
    pub fn resolve(&mut self, path: &[u8]) -> Result<VfsPath, Errno> {
        if path.is_empty() {
            if !self.flags.contains(WalkFlags::EMPTY_PATH) {
                return Err(Errno::ENOENT);
            }
        } else {
            self.run(path, Goal::Object)?;
        }
        if self.flags.contains(WalkFlags::DIRECTORY)
            && self.at.inode_ref()?.kind() != FileKind::Directory
        {
            return Err(Errno::ENOTDIR);
        }
        Ok(self.at.clone())
    }

    /// Walks `path` up to its last component.
    pub fn parent(&mut self, path: &[u8]) -> Result<ParentAndLast, Errno> {
        if path.is_empty() {
            return Err(Errno::ENOENT);
        }
        match self.run(path, Goal::Parent)? {
            Outcome::Parent(last, trailing_slash) => Ok(ParentAndLast {
                parent: self.at.clone(),
                last,
                trailing_slash,
            }),
            Outcome::Object => Err(Errno::ENOENT),
        }
    }

    /// After [`Self::parent`]: what its last name leads to, mounts entered,
    /// symlinks not followed. `None` if there is nothing.
    pub fn child(&self, name: &[u8]) -> Result<Option<VfsPath>, Errno> {
        let child = lookup(&self.at, name)?;
        if child.inode().is_none() {
            return Ok(None);
        }
        let path = VfsPath {
            mount: self.at.mount.clone(),
            dentry: child,
        };
        let entered = path.clone().enter_mounts();
        if self.flags.contains(WalkFlags::NO_XDEV) && !path.same_place(&entered) {
            return Err(Errno::EXDEV);
        }
        Ok(Some(entered))
    }

    /// After [`Self::parent`]: follows the symlink `link` found there, up to
    /// the last component of its target.
    pub fn parent_through(
        &mut self,
        link: &VfsPath,
        trailing_slash: bool,
    ) -> Result<LinkEnd, Errno> {
        match self.read_link(link)? {
            LinkBody::Magic(path) => {
                self.jump(path)?;
                Ok(LinkEnd::Object(self.at.clone()))
            }
            LinkBody::Text(mut target) => {
                if target.first() == Some(&b'/') {
                    self.go_to_root()?;
                }
                if trailing_slash {
                    target.push(b'/');
                }
                self.parent(&target).map(LinkEnd::Parent)
            }
        }
    }

    fn run(&mut self, path: &[u8], goal: Goal) -> Result<Outcome, Errno> {
        let mut text = Cow::Borrowed(path);
        let mut pos = 0;
        if text.first() == Some(&b'/') {
            self.go_to_root()?;
        }
        loop {
            let rest = text.get(pos..).unwrap_or_default();
            let skipped = rest.iter().take_while(|&&byte| byte == b'/').count();
            let rest = rest.get(skipped..).unwrap_or_default();
            let len = rest
                .iter()
                .position(|&byte| byte == b'/')
                .unwrap_or(rest.len());
            let (name, rest) = rest.split_at_checked(len).unwrap_or_default();
            let trailing = !rest.is_empty();
            let is_last = rest.iter().all(|&byte| byte == b'/');
            pos += skipped + len;

            if name.is_empty() {
                // Only slashes: the root, where the walk stands.
                return Ok(match goal {
                    Goal::Object => Outcome::Object,
                    Goal::Parent => Outcome::Parent(Last::Root, true),
                });
            }
            self.check_search()?;
            if name.len() > NAME_MAX {
                return Err(Errno::ENAMETOOLONG);
            }
            if is_last && goal == Goal::Parent {
                let last = match name {
                    b"." => Last::Dot,
                    b".." => Last::DotDot,
                    name => Last::Name(name.to_vec()),
                };
                return Ok(Outcome::Parent(last, trailing));
            }
            match name {
                b"." => {}
                b".." => self.go_up()?,
                name => {
                    let follow = !is_last || trailing || self.flags.contains(WalkFlags::FOLLOW);
                    match self.step(name, follow, is_last && !trailing)? {
                        None => {}
                        Some(LinkBody::Magic(path)) => self.jump(path)?,
                        Some(LinkBody::Text(mut target)) => {
                            target.extend_from_slice(rest);
                            if target.first() == Some(&b'/') {
                                self.go_to_root()?;
                            }
                            text = Cow::Owned(target);
                            pos = 0;
                            continue;
                        }
                    }
                }
            }
            // Before a further component this is checked with its search.
            if is_last {
                if trailing && self.at.inode_ref()?.kind() != FileKind::Directory {
                    return Err(Errno::ENOTDIR);
                }
                return Ok(Outcome::Object);
            }
        }
    }

    /// The directory the walk stands in must be one, and searchable.
    fn check_search(&self) -> Result<(), Errno> {
        let owner = self.at.inode_ref()?.owner()?;
        if owner.kind != FileKind::Directory {
            return Err(Errno::ENOTDIR);
        }
        perm::check_owner_access(&owner, self.creds, Access::EXEC)
    }

    fn go_to_root(&mut self) -> Result<(), Errno> {
        if self.flags.contains(WalkFlags::BENEATH) {
            return Err(Errno::EXDEV);
        }
        if self.flags.contains(WalkFlags::NO_XDEV) && !Arc::ptr_eq(&self.at.mount, &self.root.mount)
        {
            return Err(Errno::EXDEV);
        }
        self.at = self.root.clone();
        Ok(())
    }

    fn go_up(&mut self) -> Result<(), Errno> {
        loop {
            if self.at.same_place(&self.root) {
                if self.flags.contains(WalkFlags::BENEATH) {
                    return Err(Errno::EXDEV);
                }
                break;
            }
            match self.at.leave_mount() {
                Some(below) => {
                    if self.flags.contains(WalkFlags::NO_XDEV) {
                        return Err(Errno::EXDEV);
                    }
                    self.at = below;
                }
                None => {
                    // At the root of a detached tree there is no way up.
                    if !Arc::ptr_eq(&self.at.dentry, &self.at.mount.root)
                        && let Some(parent) = self.at.dentry.parent()
                    {
                        self.at.dentry = parent;
                    }
                    break;
                }
            }
        }
        self.enter_mounts()
    }

    fn enter_mounts(&mut self) -> Result<(), Errno> {
        while let Some(mount) = self.at.mount.child_at(&self.at.dentry) {
            if self.flags.contains(WalkFlags::NO_XDEV) {
                return Err(Errno::EXDEV);
            }
            self.at.dentry = mount.root.clone();
            self.at.mount = mount;
        }
        Ok(())
    }

    /// Steps into `name`, or answers the link to follow instead.
    fn step(&mut self, name: &[u8], follow: bool, is_end: bool) -> Result<Option<LinkBody>, Errno> {
        let child = lookup(&self.at, name)?;
        if self.remembers {
            self.note(name, &child, is_end);
        }
        let kind = child.inode().ok_or(Errno::ENOENT)?.kind();
        if kind == FileKind::Symlink && follow {
            let link = VfsPath {
                mount: self.at.mount.clone(),
                dentry: child,
            };
            return self.read_link(&link).map(Some);
        }
        self.at.dentry = child;
        self.enter_mounts()?;
        Ok(None)
    }

    /// What the link, found in the current directory, leads to.
    fn read_link(&mut self, link: &VfsPath) -> Result<LinkBody, Errno> {
        self.links += 1;
        if self.links > LINK_MAX
            || self.flags.contains(WalkFlags::NO_SYMLINKS)
            || link.mount.flags().contains(MountFlags::NOSYMFOLLOW)
        {
            return Err(Errno::ELOOP);
        }
        let inode = link.inode_ref()?;
        if let Some(target) = inode.follow_magic_by(self.caller) {
            if self.flags.contains(WalkFlags::NO_MAGICLINKS) {
                return Err(Errno::ELOOP);
            }
            return target.map(LinkBody::Magic);
        }
        if self.vfs.sysctl.protected_symlinks.load(Ordering::Relaxed) {
            let dir = self.at.inode_ref()?.attr()?;
            if dir.perm & 0o1002 == 0o1002
                && perm::symlink_is_unsafe(&dir, &inode.attr()?, self.creds)
            {
                return Err(Errno::EACCES);
            }
        }
        let target = inode.readlink_by(self.caller)?;
        if target.is_empty() {
            return Err(Errno::ENOENT);
        }
        Ok(LinkBody::Text(target))
    }

    fn jump(&mut self, path: VfsPath) -> Result<(), Errno> {
        if self
            .flags
            .intersects(WalkFlags::BENEATH | WalkFlags::IN_ROOT)
        {
            return Err(Errno::EXDEV);
        }
        if self.flags.contains(WalkFlags::NO_XDEV) && !Arc::ptr_eq(&path.mount, &self.at.mount) {
            return Err(Errno::EXDEV);
        }
        self.at = path;
        // It depends on more than names.
        self.until_ns = 0;
        Ok(())
    }
}

/// Where [`Walk::parent_through`] ended.
pub enum LinkEnd {
    Parent(ParentAndLast),
    /// A magic link led to the object itself.
    Object(VfsPath),
}

enum LinkBody {
    Text(Vec<u8>),
    Magic(VfsPath),
}
