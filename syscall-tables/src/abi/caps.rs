//! Capabilities and securebits.

use super::names::flag_set;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

flag_set! {
    /// A set of capabilities; bit `n` is capability number `n`.
    CapSet: u64, CAP_SET {
        CAP_CHOWN = 1<<0,
        CAP_DAC_OVERRIDE = 1<<1,
        CAP_DAC_READ_SEARCH = 1<<2,
        CAP_FOWNER = 1<<3,
        CAP_FSETID = 1<<4,
        CAP_KILL = 1<<5,
        CAP_SETGID = 1<<6,
        CAP_SETUID = 1<<7,
        CAP_SETPCAP = 1<<8,
        CAP_LINUX_IMMUTABLE = 1<<9,
        CAP_NET_BIND_SERVICE = 1<<10,
        CAP_NET_BROADCAST = 1<<11,
        CAP_NET_ADMIN = 1<<12,
        CAP_NET_RAW = 1<<13,
        CAP_IPC_LOCK = 1<<14,
        CAP_IPC_OWNER = 1<<15,
        CAP_SYS_MODULE = 1<<16,
        CAP_SYS_RAWIO = 1<<17,
        CAP_SYS_CHROOT = 1<<18,
        CAP_SYS_PTRACE = 1<<19,
        CAP_SYS_PACCT = 1<<20,
        CAP_SYS_ADMIN = 1<<21,
        CAP_SYS_BOOT = 1<<22,
        CAP_SYS_NICE = 1<<23,
        CAP_SYS_RESOURCE = 1<<24,
        CAP_SYS_TIME = 1<<25,
        CAP_SYS_TTY_CONFIG = 1<<26,
        CAP_MKNOD = 1<<27,
        CAP_LEASE = 1<<28,
        CAP_AUDIT_WRITE = 1<<29,
        CAP_AUDIT_CONTROL = 1<<30,
        CAP_SETFCAP = 1<<31,
        CAP_MAC_OVERRIDE = 1<<32,
        CAP_MAC_ADMIN = 1<<33,
        CAP_SYSLOG = 1<<34,
        CAP_WAKE_ALARM = 1<<35,
        CAP_BLOCK_SUSPEND = 1<<36,
        CAP_AUDIT_READ = 1<<37,
        CAP_PERFMON = 1<<38,
        CAP_BPF = 1<<39,
        CAP_CHECKPOINT_RESTORE = 1<<40,
    }
}

impl CapSet {
    /// The set of the capability with this number, if there is one.
    pub const fn from_number(number: u64) -> Option<Self> {
        if number <= CAP_LAST_CAP as u64 {
            Some(Self::from_bits_retain(1 << number))
        } else {
            None
        }
    }
}

/// Highest capability number.
pub const CAP_LAST_CAP: u32 = 40;

/// `struct __user_cap_header_struct`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct CapUserHeader {
    pub version: u32,
    pub pid: i32,
}

/// `struct __user_cap_data_struct`; version 3 has two of them.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct CapUserData {
    pub effective: u32,
    pub permitted: u32,
    pub inheritable: u32,
}

// Versions of [`CapUserHeader`].
pub const _LINUX_CAPABILITY_VERSION_1: u32 = 0x19980330;
pub const _LINUX_CAPABILITY_VERSION_2: u32 = 0x20071026;
pub const _LINUX_CAPABILITY_VERSION_3: u32 = 0x20080522;

flag_set! {
    /// Securebits of prctl(2).
    SecureBits: u32, SECURE_BITS {
        SECBIT_NOROOT = 0x1,
        SECBIT_NOROOT_LOCKED = 0x2,
        SECBIT_NO_SETUID_FIXUP = 0x4,
        SECBIT_NO_SETUID_FIXUP_LOCKED = 0x8,
        SECBIT_KEEP_CAPS = 0x10,
        SECBIT_KEEP_CAPS_LOCKED = 0x20,
        SECBIT_NO_CAP_AMBIENT_RAISE = 0x40,
        SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED = 0x80,
    }
}

/// `struct vfs_ns_cap_data` of the `security.capability` attribute, revision 3;
/// revision 2 is without `rootid`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct VfsCapData {
    pub magic_etc: u32,
    pub permitted_low: u32,
    pub inheritable_low: u32,
    pub permitted_high: u32,
    pub inheritable_high: u32,
    pub rootid: u32,
}

/// Revisions and effective flag of [`VfsCapData`].
pub const VFS_CAP_REVISION_MASK: u32 = 0xff00_0000;
/// Revision 2.
pub const VFS_CAP_REVISION_2: u32 = 0x0200_0000;
/// Revision 3.
pub const VFS_CAP_REVISION_3: u32 = 0x0300_0000;
/// The permitted capabilities become effective.
pub const VFS_CAP_FLAGS_EFFECTIVE: u32 = 1;
