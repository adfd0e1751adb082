//! `runsc-cri unpack`: unpacks one layer from stdin into its working
//! directory. The archive is hostile: the process is chrooted, keeps the six
//! capabilities that unpacking needs, and has a system call list.
//!
//! What it may not do itself (attributes of `trusted.`) or cannot know (other
//! layers) is in its report.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, XattrFlags};
use rustix::thread::{CapabilitySet, CapabilitySets};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tar::EntryType;

/// What the child has to say, as JSON on stdout. Paths are relative, raw bytes.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// Digest of the uncompressed archive, `sha256:…`.
    pub diff_id: String,
    pub bytes: u64,
    pub files: u64,
    /// Directories without an entry of their own: their attributes are those
    /// of the layers below.
    pub implied: Vec<Vec<u8>>,
    /// Directories that hide those below.
    pub opaque: Vec<Vec<u8>>,
    /// Hard links (name, target) to files of the layers below.
    pub links: Vec<(Vec<u8>, Vec<u8>)>,
}

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub bytes: u64,
    pub files: u64,
}

/// Entry point of the child.
pub fn run(limits: Limits) -> Result<()> {
    confine().context("the unpacking process can't be confined")?;
    let report = unpack(io::stdin().lock(), Path::new("/"), limits)?;
    let mut out = io::stdout().lock();
    out.write_all(&serde_json::to_vec(&report)?)?;
    out.flush()?;
    Ok(())
}

/// Memory of the child: a window of zstd and some headers. Extended headers are
/// read whole, of whatever length an archive says.
const MEMORY: u64 = 512 << 20;

fn confine() -> Result<()> {
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_DATA, MEMORY, MEMORY)?;
    rustix::process::umask(rustix::fs::Mode::empty());
    nix::unistd::chroot(".")?;
    std::env::set_current_dir("/")?;
    let keep = CapabilitySet::CHOWN
        | CapabilitySet::DAC_OVERRIDE
        | CapabilitySet::FOWNER
        | CapabilitySet::FSETID
        | CapabilitySet::MKNOD
        | CapabilitySet::SETFCAP;
    rustix::thread::set_capabilities(
        None,
        CapabilitySets {
            effective: keep,
            permitted: keep,
            inheritable: CapabilitySet::empty(),
        },
    )?;
    rustix::thread::set_no_new_privs(true)?;
    super::confine::install()
}

/// Counts and hashes what passes through.
struct Hashing<R> {
    inner: R,
    hash: Sha256,
    bytes: u64,
    limit: u64,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.hash.update(buffer.get(..n).unwrap_or_default());
        self.bytes = self.bytes.saturating_add(n as u64);
        if self.bytes > self.limit {
            return Err(io::Error::other(format!(
                "the layer unpacks to more than {} bytes (images.max_layer_bytes)",
                self.limit
            )));
        }
        Ok(n)
    }
}

/// By its first bytes: gzip, zstd, or a plain archive.
pub fn decompress<'a, R: Read + 'a>(input: R) -> Result<Box<dyn Read + 'a>> {
    use std::io::BufRead;
    let mut input = BufReader::with_capacity(256 << 10, input);
    let magic = input.fill_buf()?;
    Ok(if magic.starts_with(&[0x1f, 0x8b]) {
        Box::new(flate2::bufread::MultiGzDecoder::new(input))
    } else if magic.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        Box::new(zstd::stream::read::Decoder::with_buffer(input)?)
    } else {
        Box::new(input)
    })
}

struct Unpacker {
    root: PathBuf,
    report: Report,
    limits: Limits,
    /// Directories that had an entry.
    named: BTreeSet<PathBuf>,
    implied: BTreeSet<PathBuf>,
    /// Times of directories are set when nothing changes in them any more.
    times: HashMap<PathBuf, Timespec>,
    buffer: Vec<u8>,
}

/// Unpacks `input` below `root`. Outside a chroot only for trusted archives.
pub fn unpack(input: impl Read, root: &Path, limits: Limits) -> Result<Report> {
    let mut stream = Hashing {
        inner: decompress(input)?,
        hash: Sha256::new(),
        bytes: 0,
        limit: limits.bytes,
    };
    let mut unpacker = Unpacker {
        root: root.to_owned(),
        report: Report::default(),
        limits,
        named: BTreeSet::new(),
        implied: BTreeSet::new(),
        times: HashMap::new(),
        buffer: vec![0; 256 << 10],
    };
    let mut archive = tar::Archive::new(&mut stream);
    for entry in archive.entries()? {
        let mut entry = entry.context("the layer is not a tar archive")?;
        let path = entry.path_bytes().into_owned();
        unpacker
            .entry(&mut entry)
            .with_context(|| format!("entry {:?}", String::from_utf8_lossy(&path)))?;
    }
    // The digest covers what follows the end of the archive too.
    let mut rest = vec![0u8; 64 << 10];
    while stream.read(&mut rest)? > 0 {}
    for (path, time) in &unpacker.times {
        set_time(path, *time)?;
    }
    let mut report = unpacker.report;
    report.implied = unpacker
        .implied
        .iter()
        .filter(|path| !unpacker.named.contains(*path))
        .map(|path| relative(path, root))
        .collect();
    report.diff_id = format!("sha256:{}", crate::ids::hex(&stream.hash.finalize()));
    Ok(report)
}

fn relative(path: &Path, root: &Path) -> Vec<u8> {
    path.strip_prefix(root)
        .unwrap_or(path)
        .as_os_str()
        .as_bytes()
        .to_vec()
}

fn set_time(path: &Path, time: Timespec) -> Result<()> {
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(())
}

impl Unpacker {
    /// The place of a name of the archive: `..` at the top stays there.
    fn place(&self, name: &[u8]) -> PathBuf {
        let mut parts: Vec<&OsStr> = Vec::new();
        for component in Path::new(OsStr::from_bytes(name)).components() {
            match component {
                Component::Normal(part) => parts.push(part),
                Component::ParentDir => drop(parts.pop()),
                Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            }
        }
        let mut path = self.root.clone();
        path.extend(parts);
        path
    }

    fn parents(&mut self, path: &Path) -> Result<()> {
        let Some(parent) = path.parent() else {
            return Ok(());
        };
        if parent == self.root || self.named.contains(parent) || self.implied.contains(parent) {
            return Ok(());
        }
        self.parents(parent)?;
        match fs::metadata(parent) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => bail!("{} is not a directory", parent.display()),
            Err(_) => {
                fs::create_dir(parent)?;
                fs::set_permissions(parent, Permissions::from_mode(0o755))?;
                self.implied.insert(parent.to_owned());
            }
        }
        Ok(())
    }

    fn entry<R: Read>(&mut self, entry: &mut tar::Entry<'_, R>) -> Result<()> {
        self.report.files = self.report.files.saturating_add(1);
        if self.report.files > self.limits.files {
            bail!(
                "the layer has more than {} files (images.max_layer_files)",
                self.limits.files
            );
        }
        let kind = entry.header().entry_type();
        if matches!(kind, EntryType::XGlobalHeader | EntryType::XHeader) {
            return Ok(());
        }
        let path = self.place(&entry.path_bytes());
        if path == self.root {
            return if kind.is_dir() {
                self.attributes(entry, &path)
            } else {
                bail!("not a directory, but named as the root")
            };
        }
        self.parents(&path)?;
        let name = path.file_name().unwrap_or_default().as_bytes().to_vec();
        if let Some(hidden) = name.strip_prefix(b".wh.") {
            return self.whiteout(&path, hidden);
        }
        self.clear(&path, kind)?;
        match kind {
            EntryType::Directory => {
                if !path.is_dir() {
                    fs::create_dir(&path)?;
                }
                self.named.insert(path.clone());
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                self.file(entry, &path)?;
            }
            EntryType::Symlink => {
                let target = entry.link_name_bytes().context("no target")?;
                symlink(OsStr::from_bytes(&target), &path)?;
            }
            EntryType::Link => {
                let target = self.place(&entry.link_name_bytes().context("no target")?);
                match fs::hard_link(&target, &path) {
                    Err(err) if err.kind() == io::ErrorKind::NotFound => {
                        let link = (relative(&path, &self.root), relative(&target, &self.root));
                        self.report.links.push(link);
                    }
                    other => other?,
                }
                // Attributes are those of the file.
                return Ok(());
            }
            EntryType::Char | EntryType::Block | EntryType::Fifo => {
                let format = match kind {
                    EntryType::Char => SFlag::S_IFCHR,
                    EntryType::Block => SFlag::S_IFBLK,
                    _ => SFlag::S_IFIFO,
                };
                let major = entry.header().device_major().ok().flatten().unwrap_or(0);
                let minor = entry.header().device_minor().ok().flatten().unwrap_or(0);
                let device = makedev(u64::from(major), u64::from(minor));
                mknod(&path, format, Mode::from_bits_truncate(0o600), device)?;
            }
            other => bail!("type {other:?} is not known"),
        }
        self.attributes(entry, &path)
    }

    /// What is in the way of a new entry goes; a directory stays one.
    fn clear(&self, path: &Path, kind: EntryType) -> Result<()> {
        let Ok(found) = fs::symlink_metadata(path) else {
            return Ok(());
        };
        if found.is_dir() {
            if !kind.is_dir() {
                fs::remove_dir_all(path)?;
            }
        } else {
            fs::remove_file(path)?;
        }
        Ok(())
    }

    fn whiteout(&mut self, path: &Path, hidden: &[u8]) -> Result<()> {
        let parent = path.parent().unwrap_or(&self.root).to_owned();
        if hidden == b".wh..opq" {
            self.report.opaque.push(relative(&parent, &self.root));
            return Ok(());
        }
        // Other names of aufs mean nothing here.
        if hidden.starts_with(b".wh.") || hidden.is_empty() || hidden == b"." || hidden == b".." {
            return Ok(());
        }
        let target = parent.join(OsStr::from_bytes(hidden));
        if fs::symlink_metadata(&target).is_err() {
            // Overlayfs: a character device 0:0 hides the name below.
            mknod(&target, SFlag::S_IFCHR, Mode::empty(), makedev(0, 0))?;
        }
        Ok(())
    }

    fn file<R: Read>(&mut self, entry: &mut tar::Entry<'_, R>, path: &Path) -> Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        loop {
            let n = entry.read(&mut self.buffer)?;
            if n == 0 {
                return Ok(());
            }
            file.write_all(self.buffer.get(..n).unwrap_or_default())?;
            self.report.bytes = self.report.bytes.saturating_add(n as u64);
            // A sparse entry has more bytes than the archive.
            if self.report.bytes > self.limits.bytes {
                bail!(
                    "the layer unpacks to more than {} bytes (images.max_layer_bytes)",
                    self.limits.bytes
                );
            }
        }
    }

    /// Owner, then mode (a change of owner clears set-id bits), extended
    /// attributes, time.
    fn attributes<R: Read>(&mut self, entry: &mut tar::Entry<'_, R>, path: &Path) -> Result<()> {
        let kind = entry.header().entry_type();
        let uid = u32::try_from(entry.header().uid()?).context("user id")?;
        let gid = u32::try_from(entry.header().gid()?).context("group id")?;
        let mode = entry.header().mode()? & 0o7777;
        let mut time = Timespec {
            tv_sec: i64::try_from(entry.header().mtime().unwrap_or(0)).unwrap_or(0),
            tv_nsec: 0,
        };
        std::os::unix::fs::lchown(path, Some(uid), Some(gid))?;
        if kind != EntryType::Symlink {
            fs::set_permissions(path, Permissions::from_mode(mode))?;
        }
        if let Some(extensions) = entry.pax_extensions()? {
            for extension in extensions {
                let extension = extension?;
                let key = extension.key_bytes();
                if key == b"mtime" {
                    if let Some(exact) = extension.value().ok().and_then(parse_time) {
                        time = exact;
                    }
                } else if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    // `trusted.` is the host's (overlayfs keeps its own there).
                    if name.starts_with(b"trusted.") || name.starts_with(b"system.") {
                        continue;
                    }
                    let set = rustix::fs::lsetxattr(
                        path,
                        name,
                        extension.value_bytes(),
                        XattrFlags::empty(),
                    );
                    match set {
                        // The file system or security module has none.
                        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::PERM) => {}
                        other => other?,
                    }
                }
            }
        }
        if kind.is_dir() {
            self.times.insert(path.to_owned(), time);
            return Ok(());
        }
        set_time(path, time)
    }
}

/// `SECONDS.FRACTION` of a PAX header.
fn parse_time(text: &str) -> Option<Timespec> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits: String = fraction
        .chars()
        .chain("000000000".chars())
        .take(9)
        .collect();
    Some(Timespec {
        tv_sec: seconds.parse().ok()?,
        tv_nsec: digits.parse().ok()?,
    })
}

/// Copies a file of another layer with its attributes: a hard link across
/// layers. Both are opened descriptors of trusted walks.
pub fn copy_file(from: &File, to: &Path) -> Result<()> {
    let meta = from.metadata()?;
    let mut target = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(to)?;
    io::copy(&mut &*from, &mut target)?;
    std::os::unix::fs::lchown(to, Some(meta.uid()), Some(meta.gid()))?;
    target.set_permissions(meta.permissions())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_inside() {
        let unpacker = Unpacker {
            root: PathBuf::from("/r"),
            report: Report::default(),
            limits: Limits { bytes: 0, files: 0 },
            named: BTreeSet::new(),
            implied: BTreeSet::new(),
            times: HashMap::new(),
            buffer: Vec::new(),
        };
        assert_eq!(
            unpacker.place(b"../../etc/passwd"),
            Path::new("/r/etc/passwd")
        );
        assert_eq!(unpacker.place(b"/a/./b/../c"), Path::new("/r/a/c"));
        assert_eq!(unpacker.place(b"./"), Path::new("/r"));
    }

    #[test]
    fn times() {
        let time = parse_time("12.5").unwrap();
        assert_eq!((time.tv_sec, time.tv_nsec), (12, 500_000_000));
    }
}
