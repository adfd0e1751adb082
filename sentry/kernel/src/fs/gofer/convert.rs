//! Attributes of the protocol to and from those of the VFS.

use std::os::fd::AsFd;
use std::time::Duration;

use gofer_proto::{SetMask, Time};
use sentry_platform::host::{self, HostClock};
use syscall_tables::Errno;
use syscall_tables::abi::{Stat, Timespec};

use crate::task::{Gid, Uid};
use crate::vfs::{Attr, FileKind, SetAttr, SetTime, Timestamp};

fn timestamp(time: Time) -> Timestamp {
    Timestamp {
        secs: time.sec,
        nanos: time.nsec.min(999_999_999),
    }
}

/// `EIO` for a file type that does not exist.
pub(super) fn kind(attr: &gofer_proto::Attr) -> Result<FileKind, Errno> {
    FileKind::from_mode(attr.mode).ok_or(Errno::EIO)
}

/// What the guest sees, with the device number `dev`.
pub(super) fn to_vfs(attr: &gofer_proto::Attr, dev: u64) -> Result<Attr, Errno> {
    Ok(Attr {
        kind: kind(attr)?,
        perm: attr.mode & 0o7777,
        dev,
        ino: attr.ino,
        nlink: u64::from(attr.nlink),
        uid: Uid(attr.uid),
        gid: Gid(attr.gid),
        size_bytes: attr.size,
        blocks: attr.blocks,
        block_size: attr.blksize,
        rdev: attr.rdev,
        atime: timestamp(attr.atime),
        mtime: timestamp(attr.mtime),
        ctime: timestamp(attr.ctime),
        btime: (attr.has_btime != 0).then(|| timestamp(attr.btime)),
    })
}

/// Brings `attr` up to what the open file says; owners are none of it, since
/// the sentry's user namespace knows nobody.
pub(super) fn update(attr: &mut gofer_proto::Attr, stat: &Stat) {
    let time = |t: Timespec| Time::new(t.tv_sec, u32::try_from(t.tv_nsec).unwrap_or(0));
    attr.mode = stat.st_mode;
    attr.nlink = u32::try_from(stat.st_nlink).unwrap_or(u32::MAX);
    attr.size = u64::try_from(stat.st_size).unwrap_or(0);
    attr.blocks = u64::try_from(stat.st_blocks).unwrap_or(0);
    attr.blksize = u32::try_from(stat.st_blksize).unwrap_or(4096);
    attr.atime = time(stat.st_atime);
    attr.mtime = time(stat.st_mtime);
    attr.ctime = time(stat.st_ctime);
}

/// The clock that expiry counts by.
pub(super) fn now() -> Duration {
    host::clock_gettime(HostClock::MonotonicCoarse)
}

pub(super) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Size by an open file.
pub(super) fn size(fd: impl AsFd) -> Result<u64, Errno> {
    let size = host::io::fstat(fd)?.st_size;
    Ok(u64::try_from(size).unwrap_or(0))
}

/// A change as the gofer takes it.
pub(super) fn from_vfs(changes: &SetAttr) -> gofer_proto::SetAttr {
    let mut mask = SetMask::empty();
    let mut set = gofer_proto::SetAttr::default();
    if let Some(perm) = changes.perm {
        mask |= SetMask::MODE;
        set.mode = perm & 0o7777;
    }
    if let Some(uid) = changes.uid {
        mask |= SetMask::UID;
        set.uid = uid.0;
    }
    if let Some(gid) = changes.gid {
        mask |= SetMask::GID;
        set.gid = gid.0;
    }
    if let Some(size) = changes.size_bytes {
        mask |= SetMask::SIZE;
        set.size = size;
    }
    let time = |to: SetTime, mask: &mut SetMask, given, now| match to {
        SetTime::Now => {
            *mask |= now;
            Time::default()
        }
        SetTime::To(time) => {
            *mask |= given;
            Time::new(time.secs, time.nanos.min(999_999_999))
        }
    };
    if let Some(atime) = changes.atime {
        set.atime = time(atime, &mut mask, SetMask::ATIME, SetMask::ATIME_NOW);
    }
    if let Some(mtime) = changes.mtime {
        set.mtime = time(mtime, &mut mask, SetMask::MTIME, SetMask::MTIME_NOW);
    }
    set.mask = mask.bits();
    set
}
