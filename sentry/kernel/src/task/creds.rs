//! Credentials of a task, an immutable snapshot that is replaced as a whole.

use std::sync::Arc;

use bitflags::bitflags;

use super::{Gid, Uid, UserNamespace};

bitflags! {
    /// A set of capabilities, bit N = capability number N.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct CapSet: u64 {
        const CHOWN = 1 << 0;
        const DAC_OVERRIDE = 1 << 1;
        const DAC_READ_SEARCH = 1 << 2;
        const FOWNER = 1 << 3;
        const FSETID = 1 << 4;
        const KILL = 1 << 5;
        const SETGID = 1 << 6;
        const SETUID = 1 << 7;
        const SETPCAP = 1 << 8;
        const LINUX_IMMUTABLE = 1 << 9;
        const NET_BIND_SERVICE = 1 << 10;
        const NET_BROADCAST = 1 << 11;
        const NET_ADMIN = 1 << 12;
        const NET_RAW = 1 << 13;
        const IPC_LOCK = 1 << 14;
        const IPC_OWNER = 1 << 15;
        const SYS_MODULE = 1 << 16;
        const SYS_RAWIO = 1 << 17;
        const SYS_CHROOT = 1 << 18;
        const SYS_PTRACE = 1 << 19;
        const SYS_PACCT = 1 << 20;
        const SYS_ADMIN = 1 << 21;
        const SYS_BOOT = 1 << 22;
        const SYS_NICE = 1 << 23;
        const SYS_RESOURCE = 1 << 24;
        const SYS_TIME = 1 << 25;
        const SYS_TTY_CONFIG = 1 << 26;
        const MKNOD = 1 << 27;
        const LEASE = 1 << 28;
        const AUDIT_WRITE = 1 << 29;
        const AUDIT_CONTROL = 1 << 30;
        const SETFCAP = 1 << 31;
        const MAC_OVERRIDE = 1 << 32;
        const MAC_ADMIN = 1 << 33;
        const SYSLOG = 1 << 34;
        const WAKE_ALARM = 1 << 35;
        const BLOCK_SUSPEND = 1 << 36;
        const AUDIT_READ = 1 << 37;
        const PERFMON = 1 << 38;
        const BPF = 1 << 39;
        const CHECKPOINT_RESTORE = 1 << 40;
    }
}

/// Who a task is.
#[derive(Clone, Debug)]
pub struct Creds {
    pub uid: Uid,
    pub euid: Uid,
    pub suid: Uid,
    pub fsuid: Uid,
    pub gid: Gid,
    pub egid: Gid,
    pub sgid: Gid,
    pub fsgid: Gid,
    pub groups: Arc<[Gid]>,
    pub permitted: CapSet,
    pub effective: CapSet,
    pub inheritable: CapSet,
    pub bounding: CapSet,
    pub ambient: CapSet,
    /// `SECBIT_*`.
    pub securebits: u32,
    pub no_new_privs: bool,
    /// The namespace that the capabilities count in.
    pub user_ns: Arc<UserNamespace>,
}

impl Creds {
    /// Root with all capabilities.
    pub fn root() -> Self {
        Self {
            uid: Uid::ROOT,
            euid: Uid::ROOT,
            suid: Uid::ROOT,
            fsuid: Uid::ROOT,
            gid: Gid::ROOT,
            egid: Gid::ROOT,
            sgid: Gid::ROOT,
            fsgid: Gid::ROOT,
            groups: Arc::from([]),
            permitted: CapSet::all(),
            effective: CapSet::all(),
            inheritable: CapSet::empty(),
            bounding: CapSet::all(),
            ambient: CapSet::empty(),
            securebits: 0,
            no_new_privs: false,
            user_ns: UserNamespace::initial(),
        }
    }

    /// Whether a capability is effective in the initial user namespace.
    pub fn has(&self, capability: CapSet) -> bool {
        self.user_ns.level == 0 && self.effective.contains(capability)
    }

    /// Whether a capability is effective in `ns`: in its own namespace as the
    /// sets say, in those below it also by being their owner.
    pub fn has_in(&self, ns: &Arc<UserNamespace>, capability: CapSet) -> bool {
        let mut at = ns;
        loop {
            if Arc::ptr_eq(at, &self.user_ns) {
                return self.effective.contains(capability);
            }
            if at.level <= self.user_ns.level {
                return false;
            }
            let Some(parent) = &at.parent else {
                return false;
            };
            if Arc::ptr_eq(parent, &self.user_ns) && at.owner == self.euid {
                return true;
            }
            at = parent;
        }
    }

    /// Whether a capability is effective in the task's own user namespace.
    pub fn has_own(&self, capability: CapSet) -> bool {
        self.effective.contains(capability)
    }

    /// These credentials moved to `user_ns`, with all capabilities there.
    pub fn in_user_ns(&self, user_ns: Arc<UserNamespace>) -> Self {
        Self {
            permitted: CapSet::all(),
            effective: CapSet::all(),
            inheritable: CapSet::empty(),
            bounding: CapSet::all(),
            ambient: CapSet::empty(),
            securebits: 0,
            user_ns,
            ..self.clone()
        }
    }

    /// Whether `gid` is the fs gid or a supplementary group.
    pub fn in_group(&self, gid: Gid) -> bool {
        self.fsgid == gid || self.groups.contains(&gid)
    }

    /// Whether `gid` is the effective gid or a supplementary group.
    pub fn in_egroup(&self, gid: Gid) -> bool {
        self.egid == gid || self.groups.contains(&gid)
    }
}
