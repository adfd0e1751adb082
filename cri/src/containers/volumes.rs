//! The first content of a volume that an image declares: what the image has at
//! its place, with owners and modes, as docker and containerd have it.
//!
//! The image is hostile, but nothing runs in it yet: symlinks of the way to the
//! folder stay inside the root, those within it are copied and never followed.

use std::fs::{self, DirEntry, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{Mode, OFlags, ResolveFlags};

/// Fills the folder `to` from `destination` of the root. An image without such
/// a folder leaves it empty.
pub fn fill(rootfs: &Path, destination: &str, to: &Path) -> Result<()> {
    let Some(from) = open_inside(rootfs, destination)? else {
        return Ok(());
    };
    let from = PathBuf::from(format!("/proc/self/fd/{}", from.as_raw_fd())).join(".");
    attributes(&fs::metadata(&from)?, to)?;
    copy(&from, to).with_context(|| format!("volume {destination}"))
}

fn open_inside(rootfs: &Path, path: &str) -> Result<Option<OwnedFd>> {
    let root = File::open(rootfs)?;
    let opened = rustix::fs::openat2(
        &root,
        path,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    );
    match opened {
        Ok(fd) => Ok(Some(fd)),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Ok(None),
        Err(err) => Err(err).with_context(|| format!("volume {path}")),
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        one(&entry, &to.join(entry.file_name()))?;
    }
    Ok(())
}

fn one(entry: &DirEntry, to: &Path) -> Result<()> {
    // Of the entry itself, not of what a symlink names.
    let meta = entry.metadata()?;
    let kind = meta.file_type();
    if kind.is_symlink() {
        symlink(fs::read_link(entry.path())?, to)?;
        lchown(to, Some(meta.uid()), Some(meta.gid()))?;
        return Ok(());
    }
    if kind.is_dir() {
        fs::create_dir(to)?;
        copy(&entry.path(), to)?;
    } else if kind.is_file() {
        let mut source = File::open(entry.path())?;
        let mut target = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(to)?;
        std::io::copy(&mut source, &mut target)?;
    } else if kind.is_char_device() || kind.is_block_device() || kind.is_fifo() {
        let device = nix::sys::stat::SFlag::from_bits_truncate(meta.mode());
        nix::sys::stat::mknod(to, device, nix::sys::stat::Mode::empty(), meta.rdev())?;
    } else {
        // A socket without its process is nothing.
        return Ok(());
    }
    attributes(&meta, to)
}

/// Owner first: a change of it clears set-id bits.
fn attributes(meta: &fs::Metadata, to: &Path) -> Result<()> {
    lchown(to, Some(meta.uid()), Some(meta.gid()))?;
    fs::set_permissions(to, meta.permissions())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn content_comes_along_and_links_stay_links() {
        let top = std::env::temp_dir().join(format!("volume-{}", std::process::id()));
        let (root, to) = (top.join("root"), top.join("to"));
        fs::create_dir_all(root.join("data/sub")).unwrap();
        fs::create_dir_all(&to).unwrap();
        fs::write(root.join("data/sub/file"), "x").unwrap();
        fs::set_permissions(
            root.join("data/sub/file"),
            fs::Permissions::from_mode(0o640),
        )
        .unwrap();
        symlink("/etc/shadow", root.join("data/link")).unwrap();
        symlink("/data", root.join("alias")).unwrap();
        fill(&root, "/alias", &to).unwrap();
        assert_eq!(fs::read_to_string(to.join("sub/file")).unwrap(), "x");
        assert_eq!(
            fs::metadata(to.join("sub/file")).unwrap().mode() & 0o777,
            0o640
        );
        assert!(fs::symlink_metadata(to.join("link")).unwrap().is_symlink());
        fill(&root, "/none", &to).unwrap();
        fs::remove_dir_all(&top).unwrap();
    }
}
