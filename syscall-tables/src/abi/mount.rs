//! Mounting: flags of the old and the new calls, and their structs.

use super::names::{const_set, flag_set};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

flag_set! {
    /// Flags of mount(2).
    MountFlags: u64, MOUNT_FLAGS {
        MS_RDONLY = 0x1,
        MS_NOSUID = 0x2,
        MS_NODEV = 0x4,
        MS_NOEXEC = 0x8,
        MS_SYNCHRONOUS = 0x10,
        MS_REMOUNT = 0x20,
        MS_MANDLOCK = 0x40,
        MS_DIRSYNC = 0x80,
        MS_NOSYMFOLLOW = 0x100,
        MS_NOATIME = 0x400,
        MS_NODIRATIME = 0x800,
        MS_BIND = 0x1000,
        MS_MOVE = 0x2000,
        MS_REC = 0x4000,
        MS_SILENT = 0x8000,
        MS_POSIXACL = 0x10000,
        MS_UNBINDABLE = 0x20000,
        MS_PRIVATE = 0x40000,
        MS_SLAVE = 0x80000,
        MS_SHARED = 0x100000,
        MS_RELATIME = 0x200000,
        MS_KERNMOUNT = 0x400000,
        MS_I_VERSION = 0x800000,
        MS_STRICTATIME = 0x1000000,
        MS_LAZYTIME = 0x2000000,
    }
}

flag_set! {
    /// Flags of umount2(2).
    UmountFlags: u32, UMOUNT_FLAGS {
        MNT_FORCE = 0x1,
        MNT_DETACH = 0x2,
        MNT_EXPIRE = 0x4,
        UMOUNT_NOFOLLOW = 0x8,
    }
}

flag_set! {
    /// Attributes of fsmount(2) and mount_setattr(2).
    MountAttrFlags: u64, MOUNT_ATTR_FLAGS {
        MOUNT_ATTR_RDONLY = 1,
        MOUNT_ATTR_NOSUID = 2,
        MOUNT_ATTR_NODEV = 4,
        MOUNT_ATTR_NOEXEC = 8,
        MOUNT_ATTR_NODIRATIME = 0x80,
        MOUNT_ATTR_IDMAP = 0x100000,
        MOUNT_ATTR_NOSYMFOLLOW = 0x200000,
    }
    field 0x70 {
        MOUNT_ATTR_RELATIME = 0,
        MOUNT_ATTR_NOATIME = 0x10,
        MOUNT_ATTR_STRICTATIME = 0x20,
    }
}

flag_set! {
    /// Flags of open_tree(2), beside those of [`crate::abi::AtFlags`].
    OpenTreeFlags: u32, OPEN_TREE_FLAGS {
        OPEN_TREE_CLONE = 1,
        OPEN_TREE_CLOEXEC = 0x80000,
        OPEN_TREE_AT_EMPTY_PATH = 0x1000,
        OPEN_TREE_AT_NO_AUTOMOUNT = 0x800,
        OPEN_TREE_AT_SYMLINK_NOFOLLOW = 0x100,
        OPEN_TREE_AT_RECURSIVE = 0x8000,
    }
}

flag_set! {
    /// Flags of move_mount(2).
    MoveMountFlags: u32, MOVE_MOUNT_FLAGS {
        MOVE_MOUNT_F_SYMLINKS = 1,
        MOVE_MOUNT_F_AUTOMOUNTS = 2,
        MOVE_MOUNT_F_EMPTY_PATH = 4,
        MOVE_MOUNT_T_SYMLINKS = 0x10,
        MOVE_MOUNT_T_AUTOMOUNTS = 0x20,
        MOVE_MOUNT_T_EMPTY_PATH = 0x40,
        MOVE_MOUNT_SET_GROUP = 0x100,
        MOVE_MOUNT_BENEATH = 0x200,
    }
}

flag_set! {
    /// Flags of fsopen(2).
    FsopenFlags: u32, FSOPEN_FLAGS {
        FSOPEN_CLOEXEC = 1,
    }
}

flag_set! {
    /// Flags of fsmount(2).
    FsmountFlags: u32, FSMOUNT_FLAGS {
        FSMOUNT_CLOEXEC = 1,
    }
}

flag_set! {
    /// Flags of fspick(2).
    FspickFlags: u32, FSPICK_FLAGS {
        FSPICK_CLOEXEC = 1,
        FSPICK_SYMLINK_NOFOLLOW = 2,
        FSPICK_NO_AUTOMOUNT = 4,
        FSPICK_EMPTY_PATH = 8,
    }
}

const_set! {
    /// Commands of fsconfig(2).
    FSCONFIG_CMDS: u32 {
        FSCONFIG_SET_FLAG = 0,
        FSCONFIG_SET_STRING = 1,
        FSCONFIG_SET_BINARY = 2,
        FSCONFIG_SET_PATH = 3,
        FSCONFIG_SET_PATH_EMPTY = 4,
        FSCONFIG_SET_FD = 5,
        FSCONFIG_CMD_CREATE = 6,
        FSCONFIG_CMD_RECONFIGURE = 7,
        FSCONFIG_CMD_CREATE_EXCL = 8,
    }
}

/// `struct mount_attr`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct MountAttr {
    pub attr_set: u64,
    pub attr_clr: u64,
    pub propagation: u64,
    pub userns_fd: u64,
}

/// `struct mnt_id_req` of statmount(2) and listmount(2).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct MntIdReq {
    pub size: u32,
    pub mnt_ns_fd: u32,
    pub mnt_id: u64,
    pub param: u64,
    pub mnt_ns_id: u64,
}

const_set! {
    /// Commands of reboot(2).
    REBOOT_CMDS: u32 {
        LINUX_REBOOT_CMD_CAD_OFF = 0,
        LINUX_REBOOT_CMD_CAD_ON = 0x89abcdef,
        LINUX_REBOOT_CMD_HALT = 0xcdef0123,
        LINUX_REBOOT_CMD_KEXEC = 0x45584543,
        LINUX_REBOOT_CMD_POWER_OFF = 0x4321fedc,
        LINUX_REBOOT_CMD_RESTART = 0x1234567,
        LINUX_REBOOT_CMD_RESTART2 = 0xa1b2c3d4,
        LINUX_REBOOT_CMD_SW_SUSPEND = 0xd000fce2,
    }
}

// Magic numbers of reboot(2).
pub const LINUX_REBOOT_MAGIC1: u32 = 0xfee1dead;
pub const LINUX_REBOOT_MAGIC2: u32 = 0x28121969;
