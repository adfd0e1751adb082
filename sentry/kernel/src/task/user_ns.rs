//! User namespaces: id mappings and who owns what.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use parking_lot::RwLock;
use syscall_tables::Errno;

use super::{CapSet, Creds, Gid, Uid};

/// Inode number of the initial user namespace, as Linux has it.
const INITIAL_ID: u64 = 0xEFFF_FFFD;

/// What an id without a mapping is shown as (`/proc/sys/kernel/overflowuid`).
pub const OVERFLOW_ID: u32 = 65534;

/// Lines a mapping can have.
const MAX_EXTENTS: usize = 340;

/// How deep user namespaces nest at most.
const MAX_LEVEL: u32 = 32;

/// One line of `/proc/PID/uid_map`, with the outer id as a kernel-wide one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdExtent {
    pub inner: u32,
    pub outer: u32,
    pub count: u32,
}

/// A mapping; empty until it is written.
pub type IdMap = Vec<IdExtent>;

/// A user namespace.
pub struct UserNamespace {
    /// Inode number of `/proc/PID/ns/user`.
    pub id: u64,
    pub parent: Option<Arc<UserNamespace>>,
    pub level: u32,
    /// Effective uid and gid of its creator.
    pub owner: Uid,
    pub group: Gid,
    uid_map: RwLock<IdMap>,
    gid_map: RwLock<IdMap>,
    setgroups: AtomicBool,
}

static NEXT_USER_NS: AtomicU64 = AtomicU64::new(0xF100_0000);

impl UserNamespace {
    /// The sandbox's initial namespace with the identity mapping.
    pub fn initial() -> Arc<Self> {
        static INITIAL: LazyLock<Arc<UserNamespace>> = LazyLock::new(|| {
            let all = vec![IdExtent {
                inner: 0,
                outer: 0,
                count: u32::MAX,
            }];
            Arc::new(UserNamespace {
                id: INITIAL_ID,
                parent: None,
                level: 0,
                owner: Uid::ROOT,
                group: Gid::ROOT,
                uid_map: RwLock::new(all.clone()),
                gid_map: RwLock::new(all),
                setgroups: AtomicBool::new(true),
            })
        });
        INITIAL.clone()
    }

    /// A namespace without mappings below that of `creds`.
    pub fn new_child(creds: &Creds) -> Result<Arc<Self>, Errno> {
        let parent = creds.user_ns.clone();
        if parent.level >= MAX_LEVEL {
            return Err(Errno::ENOSPC);
        }
        if parent.uid_from_kernel(creds.euid).is_none()
            || parent.gid_from_kernel(creds.egid).is_none()
        {
            return Err(Errno::EPERM);
        }
        Ok(Arc::new(Self {
            id: NEXT_USER_NS.fetch_add(1, Ordering::Relaxed),
            level: parent.level + 1,
            owner: creds.euid,
            group: creds.egid,
            uid_map: RwLock::default(),
            gid_map: RwLock::default(),
            setgroups: AtomicBool::new(parent.setgroups.load(Ordering::Relaxed)),
            parent: Some(parent),
        }))
    }

    /// Whether `id` means the same here and everywhere: the initial namespace
    /// maps all ids but the invalid one to themselves, for good.
    fn is_identity(&self, id: u32) -> bool {
        self.level == 0 && id != u32::MAX
    }

    /// The kernel-wide uid of `uid` here; `None` without a mapping.
    pub fn uid_to_kernel(&self, uid: u32) -> Option<Uid> {
        if self.is_identity(uid) {
            return Some(Uid(uid));
        }
        to_kernel(&self.uid_map.read(), uid).map(Uid)
    }

    pub fn gid_to_kernel(&self, gid: u32) -> Option<Gid> {
        if self.is_identity(gid) {
            return Some(Gid(gid));
        }
        to_kernel(&self.gid_map.read(), gid).map(Gid)
    }

    /// What `uid` is called here; `None` without a mapping.
    pub fn uid_from_kernel(&self, uid: Uid) -> Option<u32> {
        if self.is_identity(uid.0) {
            return Some(uid.0);
        }
        from_kernel(&self.uid_map.read(), uid.0)
    }

    pub fn gid_from_kernel(&self, gid: Gid) -> Option<u32> {
        if self.is_identity(gid.0) {
            return Some(gid.0);
        }
        from_kernel(&self.gid_map.read(), gid.0)
    }

    /// As [`Self::uid_from_kernel`], with the overflow id for the unmapped.
    pub fn uid_or_overflow(&self, uid: Uid) -> u32 {
        self.uid_from_kernel(uid).unwrap_or(OVERFLOW_ID)
    }

    pub fn gid_or_overflow(&self, gid: Gid) -> u32 {
        self.gid_from_kernel(gid).unwrap_or(OVERFLOW_ID)
    }

    pub fn uid_map(&self) -> IdMap {
        self.uid_map.read().clone()
    }

    pub fn gid_map(&self) -> IdMap {
        self.gid_map.read().clone()
    }

    /// Whether `setgroups(2)` is allowed (`/proc/PID/setgroups`).
    pub fn setgroups_allowed(&self) -> bool {
        self.setgroups.load(Ordering::Relaxed)
    }

    /// Whether `setgroups` can be used: allowed, and the gid map is there.
    pub fn may_setgroups(&self) -> bool {
        self.setgroups_allowed() && !self.gid_map.read().is_empty()
    }

    /// Writes `/proc/PID/setgroups`.
    pub fn set_setgroups(&self, allowed: bool) -> Result<(), Errno> {
        if allowed {
            // Denying can't be taken back.
            return if self.setgroups_allowed() {
                Ok(())
            } else {
                Err(Errno::EPERM)
            };
        }
        if !self.gid_map.read().is_empty() {
            return Err(Errno::EPERM);
        }
        self.setgroups.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Writes `/proc/PID/uid_map` (`writer`: who writes): see
    /// user_namespaces(7) for the rules.
    pub fn write_uid_map(&self, writer: &Creds, text: &[u8]) -> Result<(), Errno> {
        let parent = self.parent.as_ref().ok_or(Errno::EPERM)?;
        let extents = parse_map(text)?;
        let own_only =
            matches!(extents[..], [one] if one.count == 1) && writer.euid == self.owner && {
                let outer = extents.first().map_or(0, |extent| extent.outer);
                parent.uid_to_kernel(outer) == Some(writer.euid)
            };
        if !own_only && !writer.has_in(parent, CapSet::SETUID) {
            return Err(Errno::EPERM);
        }
        self.check_map_writer(writer, parent)?;
        let mapped = translate(&extents, &parent.uid_map.read())?;
        set_once(&mut self.uid_map.write(), mapped)
    }

    /// Writes `/proc/PID/gid_map`.
    pub fn write_gid_map(&self, writer: &Creds, text: &[u8]) -> Result<(), Errno> {
        let parent = self.parent.as_ref().ok_or(Errno::EPERM)?;
        let extents = parse_map(text)?;
        let own_only = matches!(extents[..], [one] if one.count == 1)
            && writer.euid == self.owner
            && !self.setgroups_allowed()
            && {
                let outer = extents.first().map_or(0, |extent| extent.outer);
                parent.gid_to_kernel(outer) == Some(writer.egid)
            };
        if !own_only && !writer.has_in(parent, CapSet::SETGID) {
            return Err(Errno::EPERM);
        }
        self.check_map_writer(writer, parent)?;
        let mapped = translate(&extents, &parent.gid_map.read())?;
        set_once(&mut self.gid_map.write(), mapped)
    }

    /// The writer must be in this namespace or its parent, with
    /// `CAP_SYS_ADMIN` here.
    fn check_map_writer(&self, writer: &Creds, parent: &Arc<Self>) -> Result<(), Errno> {
        let inside = writer.user_ns.id == self.id || Arc::ptr_eq(&writer.user_ns, parent);
        let owner = Arc::ptr_eq(&writer.user_ns, parent) && writer.euid == self.owner;
        let capable = owner
            || (writer.user_ns.id == self.id && writer.effective.contains(CapSet::SYS_ADMIN))
            || writer.has_in(parent, CapSet::SYS_ADMIN);
        if inside && capable {
            Ok(())
        } else {
            Err(Errno::EPERM)
        }
    }

    /// Whether `self` is `other` or one of its ancestors.
    pub fn contains(self: &Arc<Self>, other: &Arc<Self>) -> bool {
        let mut at = Some(other);
        while let Some(ns) = at {
            if Arc::ptr_eq(self, ns) {
                return true;
            }
            at = ns.parent.as_ref();
        }
        false
    }
}

impl std::fmt::Debug for UserNamespace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "user:[{}]", self.id)
    }
}

fn to_kernel(map: &[IdExtent], id: u32) -> Option<u32> {
    map.iter().find_map(|extent| {
        let offset = id.checked_sub(extent.inner)?;
        (offset < extent.count).then(|| extent.outer.checked_add(offset))?
    })
}

fn from_kernel(map: &[IdExtent], id: u32) -> Option<u32> {
    map.iter().find_map(|extent| {
        let offset = id.checked_sub(extent.outer)?;
        (offset < extent.count).then(|| extent.inner.checked_add(offset))?
    })
}

fn parse_map(text: &[u8]) -> Result<IdMap, Errno> {
    let text = std::str::from_utf8(text).map_err(|_| Errno::EINVAL)?;
    let text = text.trim_end_matches('\0');
    let mut extents = IdMap::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let mut fields = line.split_whitespace().map(str::parse::<u32>);
        let mut field = || fields.next().and_then(Result::ok).ok_or(Errno::EINVAL);
        let extent = IdExtent {
            inner: field()?,
            outer: field()?,
            count: field()?,
        };
        let ends_in_range = extent.inner.checked_add(extent.count).is_some()
            && extent.outer.checked_add(extent.count).is_some();
        if fields.next().is_some() || extent.count == 0 || !ends_in_range {
            return Err(Errno::EINVAL);
        }
        let clashes = |other: &IdExtent| {
            let apart = |a: u32, b: u32| {
                u64::from(a) + u64::from(extent.count) <= u64::from(b)
                    || u64::from(b) + u64::from(other.count) <= u64::from(a)
            };
            !apart(extent.inner, other.inner) || !apart(extent.outer, other.outer)
        };
        if extents.iter().any(clashes) {
            return Err(Errno::EINVAL);
        }
        extents.push(extent);
    }
    if extents.is_empty() || extents.len() > MAX_EXTENTS {
        return Err(Errno::EINVAL);
    }
    Ok(extents)
}

/// Turns outer ids, as the parent calls them, into kernel-wide ones.
fn translate(extents: &[IdExtent], parent: &[IdExtent]) -> Result<IdMap, Errno> {
    let one = |extent: &IdExtent| {
        let last = extent.outer + (extent.count - 1);
        let first_outer = to_kernel(parent, extent.outer).ok_or(Errno::EPERM)?;
        let last_outer = to_kernel(parent, last).ok_or(Errno::EPERM)?;
        if last_outer.checked_sub(first_outer) != Some(extent.count - 1) {
            return Err(Errno::EPERM);
        }
        Ok(IdExtent {
            outer: first_outer,
            ..*extent
        })
    };
    extents.iter().map(one).collect()
}

fn set_once(map: &mut IdMap, new: IdMap) -> Result<(), Errno> {
    if !map.is_empty() {
        return Err(Errno::EPERM);
    }
    *map = new;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_translates_both_ways_and_is_written_once() {
        let creds = Creds::root();
        let ns = UserNamespace::new_child(&creds).expect("child");
        assert_eq!(ns.uid_or_overflow(Uid(5)), OVERFLOW_ID);
        ns.write_uid_map(&creds, b"0 1000 10\n10 5000 1\n")
            .expect("root may map anything");
        assert_eq!(ns.uid_to_kernel(3), Some(Uid(1003)));
        assert_eq!(ns.uid_to_kernel(10), Some(Uid(5000)));
        assert_eq!(ns.uid_to_kernel(11), None);
        assert_eq!(ns.uid_from_kernel(Uid(1009)), Some(9));
        assert_eq!(ns.write_uid_map(&creds, b"0 0 1"), Err(Errno::EPERM));
    }

    #[test]
    fn bad_maps_are_refused() {
        for text in ["", "0 0", "0 0 0", "0 0 1 2", "0 0 10\n5 100 1", "x 0 1"] {
            assert_eq!(parse_map(text.as_bytes()), Err(Errno::EINVAL), "{text:?}");
        }
    }

    #[test]
    fn an_unprivileged_owner_may_map_only_itself() {
        let creds = Creds {
            uid: Uid(1000),
            euid: Uid(1000),
            egid: Gid(1000),
            effective: CapSet::empty(),
            ..Creds::root()
        };
        let ns = UserNamespace::new_child(&creds).expect("child");
        assert_eq!(ns.write_uid_map(&creds, b"0 0 1"), Err(Errno::EPERM));
        assert_eq!(ns.write_gid_map(&creds, b"0 1000 1"), Err(Errno::EPERM));
        ns.write_uid_map(&creds, b"0 1000 1").expect("own uid");
        ns.set_setgroups(false).expect("deny");
        ns.write_gid_map(&creds, b"0 1000 1").expect("own gid");
    }
}
