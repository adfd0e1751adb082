//! Unpacked layers: `layers/CHAIN/fs`, complete once `layers/CHAIN/layer.json`
//! is there. A chain id names a layer together with all below it.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use rustix::fs::{Mode, OFlags, ResolveFlags, XattrFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::idmap::{Depth, IdMap};
use super::unpack::{self, Limits, Report};
use crate::store::atomic;

/// `layer.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LayerRecord {
    pub chain_id: String,
    pub diff_id: String,
    /// Of the files' data.
    pub bytes: u64,
    pub files: u64,
}

#[derive(Debug)]
pub struct Layers {
    dir: PathBuf,
}

/// `sha256:` over the parent's chain id and the layer's digest (OCI image
/// configuration, "Layer ChainID").
pub fn chain_ids(diff_ids: &[String]) -> Vec<String> {
    let mut chain: Vec<String> = Vec::new();
    for diff in diff_ids {
        let next = match chain.last() {
            None => diff.clone(),
            Some(parent) => {
                let digest = Sha256::digest(format!("{parent} {diff}").as_bytes());
                format!("sha256:{}", crate::ids::hex(&digest))
            }
        };
        chain.push(next);
    }
    chain
}

/// The digits of a digest, safe as a file name.
pub fn digits(digest: &str) -> Result<&str> {
    match digest.strip_prefix("sha256:") {
        Some(hex) if hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()) => Ok(hex),
        _ => bail!("{digest:?} is not a sha256 digest"),
    }
}

impl Layers {
    pub fn open(root: &Path) -> Result<Self> {
        let dir = root.join("layers");
        fs::create_dir_all(&dir)?;
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o711))?;
        // What a killed daemon has left half unpacked.
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            if !entry.path().join("layer.json").exists() {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        Ok(Self { dir })
    }

    fn path(&self, chain_id: &str) -> Result<PathBuf> {
        Ok(self.dir.join(digits(chain_id)?))
    }

    pub fn record(&self, chain_id: &str) -> Option<LayerRecord> {
        atomic::read_json(&self.path(chain_id).ok()?.join("layer.json"))
            .ok()
            .flatten()
    }

    pub fn has(&self, chain_id: &str) -> bool {
        self.record(chain_id).is_some()
    }

    pub fn all(&self) -> Vec<LayerRecord> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        entries
            .filter_map(|e| {
                atomic::read_json(&e.path().join("layer.json"))
                    .ok()
                    .flatten()
            })
            .collect()
    }

    /// Unpacks a blob in a confined child, into a temporary folder.
    pub async fn unpack(&self, blob: &Path, limits: Limits) -> Result<Unpacked> {
        let dir = self.dir.join(format!("tmp-{}", crate::ids::random()));
        let root = dir.join("fs");
        fs::create_dir_all(&root)?;
        fs::set_permissions(&root, fs::Permissions::from_mode(0o755))?;
        let mut unpacked = Unpacked {
            dir: Some(dir),
            report: Report::default(),
        };
        let child = tokio::process::Command::new("/proc/self/exe")
            .arg("unpack")
            .arg(format!("--max-bytes={}", limits.bytes))
            .arg(format!("--max-files={}", limits.files))
            .current_dir(&root)
            .env_clear()
            .stdin(File::open(blob)?)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("the unpacking process can't be started")?;
        let output = child.wait_with_output().await?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            bail!(
                "the layer can't be unpacked: {} ({})",
                text.trim(),
                output.status
            );
        }
        unpacked.report = serde_json::from_slice(&output.stdout)?;
        Ok(unpacked)
    }

    /// Gives an unpacked layer its place above `below` (lowest first).
    pub fn commit(&self, mut layer: Unpacked, chain_id: &str, below: &[String]) -> Result<()> {
        let Some(dir) = layer.dir.clone() else {
            bail!("the layer has its place already");
        };
        let root = dir.join("fs");
        let own = open_root(&root)?;
        for path in &layer.report.opaque {
            let target = open_directory(&own, path)?;
            rustix::fs::fsetxattr(&target, "trusted.overlay.opaque", b"y", XattrFlags::empty())?;
        }
        let mut lower = Vec::new();
        for chain in below.iter().rev() {
            lower.push(open_root(&self.path(chain)?.join("fs"))?);
        }
        for path in &layer.report.implied {
            let target = File::from(open_directory(&own, path)?);
            let Some(model) = lower.iter().find_map(|l| open_directory(l, path).ok()) else {
                continue;
            };
            let meta = File::from(model).metadata()?;
            std::os::unix::fs::fchown(&target, Some(meta.uid()), Some(meta.gid()))?;
            target.set_permissions(meta.permissions())?;
        }
        for (name, target) in &layer.report.links {
            let model = lower
                .iter()
                .find_map(|l| open_beneath(l, target, OFlags::RDONLY | OFlags::NOFOLLOW).ok())
                .with_context(|| {
                    format!(
                        "hard link to {:?}, which no layer has",
                        String::from_utf8_lossy(target)
                    )
                })?;
            let link = Path::new(std::ffi::OsStr::from_bytes(name));
            let file_name = link.file_name().context("a link without a name")?;
            let parent = link.parent().unwrap_or(Path::new(""));
            let folder = open_directory(&own, parent.as_os_str().as_bytes())?;
            let place = fd_path(&folder).join(file_name);
            unpack::copy_file(&File::from(model), &place)?;
        }
        let record = LayerRecord {
            chain_id: chain_id.to_owned(),
            diff_id: layer.report.diff_id.clone(),
            bytes: layer.report.bytes,
            files: layer.report.files,
        };
        // The files before the record that vouches for them.
        rustix::fs::syncfs(&own)?;
        atomic::write_json(&dir.join("layer.json"), &record)?;
        let place = self.path(chain_id)?;
        match fs::rename(&dir, &place) {
            Ok(()) => layer.dir = None,
            // Another pull was faster.
            Err(_) if place.join("layer.json").exists() => {}
            Err(err) => return Err(err.into()),
        }
        Ok(())
    }

    pub fn remove(&self, chain_id: &str) -> Result<()> {
        let path = self.path(chain_id)?;
        // Without its record it is garbage, also after a crash.
        match fs::remove_file(path.join("layer.json")) {
            Err(err) if err.kind() != std::io::ErrorKind::NotFound => return Err(err.into()),
            _ => {}
        }
        fs::remove_dir_all(&path).or_else(|err| match err.kind() {
            std::io::ErrorKind::NotFound => Ok(()),
            _ => Err(err.into()),
        })
    }

    /// Mounts the layers (lowest first) at `target`; writable when `upper` and
    /// `work` are given, with mapped ids when `ids` are.
    pub fn mount(
        &self,
        layers: &[String],
        upper: Option<(&Path, &Path)>,
        ids: Option<&IdMap>,
        target: &Path,
    ) -> Result<()> {
        let mut paths = Vec::new();
        for id in layers.iter().rev() {
            paths.push(self.path(id)?.join("fs"));
        }
        if upper.is_none() && paths.len() == 1 {
            // An overlay without an upper layer has at least two.
            let empty = self.dir.join("empty").join("fs");
            fs::create_dir_all(&empty)?;
            paths.push(empty);
        }
        let Some(ids) = ids else {
            return overlay(&paths, upper, target);
        };
        // The overlay keeps the mapped clones of the layers, their places are
        // not needed any longer.
        let mapped = target.with_extension("layers");
        let places: Vec<PathBuf> = (0..paths.len())
            .map(|number| mapped.join(number.to_string()))
            .collect();
        for place in &places {
            fs::create_dir_all(place)?;
        }
        if let Some((upper, _)) = upper {
            std::os::unix::fs::chown(upper, Some(ids.root.0), Some(ids.root.1))?;
        }
        let pairs: Vec<_> = paths.into_iter().zip(places.iter().cloned()).collect();
        let mounted = ids
            .mount(&pairs, Depth::One)
            .and_then(|()| overlay(&places, upper, target));
        for place in &places {
            unmount(place)?;
        }
        fs::remove_dir_all(&mapped)?;
        mounted
    }
}

/// Mounts an overlay of these folders, highest first.
fn overlay(paths: &[PathBuf], upper: Option<(&Path, &Path)>, target: &Path) -> Result<()> {
    let fs = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)
        .context("the kernel has no overlayfs")?;
    let fs = fs_options(&fs, paths, upper).map(|()| fs)?;
    rustix::mount::fsconfig_create(fs_fd(&fs)).context("the overlay can't be made")?;
    let mut attributes = MountAttrFlags::empty();
    attributes.set(MountAttrFlags::MOUNT_ATTR_RDONLY, upper.is_none());
    let mount = rustix::mount::fsmount(fs_fd(&fs), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    rustix::mount::move_mount(
        &mount,
        "",
        rustix::fs::CWD,
        target,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )
    .with_context(|| format!("the root can't be mounted at {}", target.display()))
}

fn fs_fd(fd: &OwnedFd) -> std::os::fd::BorrowedFd<'_> {
    use std::os::fd::AsFd;
    fd.as_fd()
}

fn fs_options(fs: &OwnedFd, paths: &[PathBuf], upper: Option<(&Path, &Path)>) -> Result<()> {
    // One option per layer, without a limit of a page (Linux 6.7).
    let single = paths
        .first()
        .is_none_or(|p| rustix::mount::fsconfig_set_string(fs, "lowerdir+", p.as_path()).is_err());
    if single {
        let joined: Vec<String> = paths
            .iter()
            .map(|p| p.display().to_string().replace(':', "\\:"))
            .collect();
        rustix::mount::fsconfig_set_string(fs, "lowerdir", joined.join(":"))?;
    } else {
        for path in paths.iter().skip(1) {
            rustix::mount::fsconfig_set_string(fs, "lowerdir+", path.as_path())?;
        }
    }
    if let Some((upper, work)) = upper {
        rustix::mount::fsconfig_set_string(fs, "upperdir", upper)?;
        rustix::mount::fsconfig_set_string(fs, "workdir", work)?;
    }
    Ok(())
}

/// Unmounts; not being a mount point is fine.
pub fn unmount(target: &Path) -> Result<()> {
    match rustix::mount::unmount(target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => Ok(()),
        Err(err) => Err(err).with_context(|| format!("{} can't be unmounted", target.display())),
    }
}

fn open_root(path: &Path) -> Result<OwnedFd> {
    rustix::fs::open(
        path,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .with_context(|| format!("{} can't be opened", path.display()))
}

fn open_directory(root: &OwnedFd, path: &[u8]) -> Result<OwnedFd> {
    open_beneath(root, path, OFlags::RDONLY | OFlags::DIRECTORY)
}

/// The tree is hostile: nothing is followed out of it, no symlink at all.
fn open_beneath(root: &OwnedFd, path: &[u8], flags: OFlags) -> Result<OwnedFd> {
    let path = if path.is_empty() { b"." } else { path };
    Ok(rustix::fs::openat2(
        root,
        path,
        flags | OFlags::CLOEXEC | OFlags::NONBLOCK,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
    )?)
}

fn fd_path(fd: &OwnedFd) -> PathBuf {
    use std::os::fd::AsRawFd;
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

/// A layer without its place yet; removed when dropped.
#[derive(Debug)]
pub struct Unpacked {
    dir: Option<PathBuf>,
    pub report: Report,
}

impl Drop for Unpacked {
    fn drop(&mut self) {
        if let Some(dir) = &self.dir {
            let _ = fs::remove_dir_all(dir);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains() {
        let diffs: Vec<String> = ["a", "b"]
            .iter()
            .map(|c| format!("sha256:{}", c.repeat(64)))
            .collect();
        let chain = chain_ids(&diffs);
        assert_eq!(chain.first(), diffs.first());
        let text = format!("sha256:{} sha256:{}", "a".repeat(64), "b".repeat(64));
        let expected = format!(
            "sha256:{}",
            crate::ids::hex(&Sha256::digest(text.as_bytes()))
        );
        assert_eq!(chain.get(1), Some(&expected));
        assert!(digits("sha256:../../x").is_err());
    }
}
