//! System V IPC and POSIX message queues.

use super::names::{const_set, flag_set};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

// Flags of the get calls, with the mode in the low bits.
pub const IPC_CREAT: u32 = 0x200;
pub const IPC_EXCL: u32 = 0x400;
pub const IPC_NOWAIT: u32 = 0x800;

/// Key of a fresh object.
pub const IPC_PRIVATE: i32 = 0;

const_set! {
    /// Commands of shmctl(2), semctl(2) and msgctl(2).
    IPC_CMDS: u32 {
        IPC_RMID = 0,
        IPC_SET = 1,
        IPC_STAT = 2,
        IPC_INFO = 3,
    }
}

const_set! {
    /// Commands of shmctl(2) alone.
    SHM_CMDS: u32 {
        SHM_LOCK = 11,
        SHM_UNLOCK = 12,
        SHM_STAT = 13,
        SHM_INFO = 14,
        SHM_STAT_ANY = 15,
    }
}

const_set! {
    /// Commands of semctl(2) alone.
    SEM_CMDS: u32 {
        GETPID = 11,
        GETVAL = 12,
        GETALL = 13,
        GETNCNT = 14,
        GETZCNT = 15,
        SETVAL = 16,
        SETALL = 17,
        SEM_STAT = 18,
        SEM_INFO = 19,
        SEM_STAT_ANY = 20,
    }
}

const_set! {
    /// Commands of msgctl(2) alone.
    MSG_CMDS: u32 {
        MSG_STAT = 11,
        MSG_INFO = 12,
        MSG_STAT_ANY = 13,
    }
}

flag_set! {
    /// Flags of shmget(2) and shmat(2).
    ShmFlags: u32, SHM_FLAGS {
        SHM_HUGETLB = 0o4000,
        SHM_NORESERVE = 0o10000,
        SHM_RDONLY = 0x1000,
        SHM_RND = 0x2000,
        SHM_REMAP = 0x4000,
        SHM_EXEC = 0x8000,
    }
}

// State bits in the mode of a segment.
pub const SHM_DEST: u32 = 0o1000;
pub const SHM_LOCKED: u32 = 0o2000;

/// Flag of a semaphore operation: undo at exit.
pub const SEM_UNDO: u16 = 0x1000;

// Flags of msgrcv(2).
pub const MSG_NOERROR: u32 = 0o10000;
pub const MSG_EXCEPT: u32 = 0o20000;
pub const MSG_COPY: u32 = 0o40000;

// Limits (those of a default Linux).
pub const SHMMNI: u64 = 4096;
pub const SHMMIN: u64 = 1;
pub const SHMMAX: u64 = u64::MAX - (1 << 24);
pub const SHMALL: u64 = u64::MAX - (1 << 24);
pub const SEMMNI: u64 = 32000;
pub const SEMMSL: u64 = 32000;
pub const SEMMNS: u64 = SEMMNI * SEMMSL;
pub const SEMOPM: u64 = 500;
pub const SEMVMX: u64 = 32767;
pub const SEMAEM: u64 = SEMVMX;
pub const MSGMNI: u64 = 32000;
pub const MSGMAX: u64 = 8192;
pub const MSGMNB: u64 = 16384;

/// `struct ipc64_perm`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct IpcPerm {
    pub key: i32,
    pub uid: u32,
    pub gid: u32,
    pub cuid: u32,
    pub cgid: u32,
    pub mode: u32,
    pub seq: u16,
    pub __pad2: u16,
    pub __pad3: u32,
    pub __unused1: u64,
    pub __unused2: u64,
}

/// `struct semid64_ds` of x86-64.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct SemidDs {
    pub sem_perm: IpcPerm,
    pub sem_otime: i64,
    pub __unused1: u64,
    pub sem_ctime: i64,
    pub __unused2: u64,
    pub sem_nsems: u64,
    pub __unused3: u64,
    pub __unused4: u64,
}

/// `struct shmid64_ds`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct ShmidDs {
    pub shm_perm: IpcPerm,
    pub shm_segsz: u64,
    pub shm_atime: i64,
    pub shm_dtime: i64,
    pub shm_ctime: i64,
    pub shm_cpid: i32,
    pub shm_lpid: i32,
    pub shm_nattch: u64,
    pub __unused4: u64,
    pub __unused5: u64,
}

/// `struct msqid64_ds`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct MsqidDs {
    pub msg_perm: IpcPerm,
    pub msg_stime: i64,
    pub msg_rtime: i64,
    pub msg_ctime: i64,
    pub msg_cbytes: u64,
    pub msg_qnum: u64,
    pub msg_qbytes: u64,
    pub msg_lspid: i32,
    pub msg_lrpid: i32,
    pub __unused4: u64,
    pub __unused5: u64,
}

/// `struct sembuf`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Sembuf {
    pub sem_num: u16,
    pub sem_op: i16,
    pub sem_flg: u16,
}

/// `struct seminfo`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Seminfo {
    pub semmap: i32,
    pub semmni: i32,
    pub semmns: i32,
    pub semmnu: i32,
    pub semmsl: i32,
    pub semopm: i32,
    pub semume: i32,
    pub semusz: i32,
    pub semvmx: i32,
    pub semaem: i32,
}

/// `struct shminfo64`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Shminfo {
    pub shmmax: u64,
    pub shmmin: u64,
    pub shmmni: u64,
    pub shmseg: u64,
    pub shmall: u64,
    pub __unused: [u64; 4],
}

/// `struct shm_info`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct ShmInfo {
    pub used_ids: i32,
    pub __pad0: u32,
    pub shm_tot: u64,
    pub shm_rss: u64,
    pub shm_swp: u64,
    pub swap_attempts: u64,
    pub swap_successes: u64,
}

/// `struct msginfo`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Msginfo {
    pub msgpool: i32,
    pub msgmap: i32,
    pub msgmax: i32,
    pub msgmnb: i32,
    pub msgmni: i32,
    pub msgssz: i32,
    pub msgtql: i32,
    pub msgseg: u16,
    pub __pad0: u16,
}

/// `struct mq_attr`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct MqAttr {
    pub mq_flags: i64,
    pub mq_maxmsg: i64,
    pub mq_msgsize: i64,
    pub mq_curmsgs: i64,
    pub __reserved: [i64; 4],
}

/// Priorities of POSIX messages are below this.
pub const MQ_PRIO_MAX: u32 = 32768;
