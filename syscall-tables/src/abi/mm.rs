//! Constants of mmap(2) and its family.

use super::names::{const_set, flag_set};

flag_set! {
    /// Protection of mmap(2) and mprotect(2).
    ProtFlags: u32, PROT_FLAGS {
        PROT_READ = 0x1,
        PROT_WRITE = 0x2,
        PROT_EXEC = 0x4,
        PROT_SEM = 8,
        PROT_GROWSDOWN = 0x1000000,
        PROT_GROWSUP = 0x2000000,
    }
    field 0xf {
        PROT_NONE = 0x0,
    }
}

flag_set! {
    /// Flags of mmap(2). The low bits are the type: [`Self::TYPE`].
    MapFlags: u32, MAP_FLAGS {
        MAP_FIXED = 0x10,
        MAP_ANONYMOUS = 0x20,
        MAP_32BIT = 0x40,
        MAP_ABOVE4G = 0x80,
        MAP_GROWSDOWN = 0x100,
        MAP_DENYWRITE = 0x800,
        MAP_EXECUTABLE = 0x1000,
        MAP_LOCKED = 0x2000,
        MAP_NORESERVE = 0x4000,
        MAP_POPULATE = 0x8000,
        MAP_NONBLOCK = 0x10000,
        MAP_STACK = 0x20000,
        MAP_HUGETLB = 0x40000,
        MAP_SYNC = 0x80000,
        MAP_FIXED_NOREPLACE = 0x100000,
        MAP_UNINITIALIZED = 0x4000000,
    }
    field 0xf {
        MAP_SHARED = 0x1,
        MAP_PRIVATE = 0x2,
        MAP_SHARED_VALIDATE = 0x3,
        MAP_DROPPABLE = 8,
    }
}

impl MapFlags {
    /// Mask of the mapping type.
    pub const TYPE: u32 = 0xf;

    /// The mapping type's bits.
    pub const fn map_type(self) -> u32 {
        self.bits() & Self::TYPE
    }
}

/// Shift of the huge page size (as a power of two) in [`MapFlags`] and
/// [`crate::abi::MemfdFlags`].
pub const MAP_HUGE_SHIFT: u32 = 26;
/// Mask of the huge page size, unshifted.
pub const MAP_HUGE_MASK: u32 = 0x3f;

flag_set! {
    /// Flags of mremap(2).
    MremapFlags: u32, MREMAP_FLAGS {
        MREMAP_MAYMOVE = 1,
        MREMAP_FIXED = 2,
        MREMAP_DONTUNMAP = 4,
    }
}

flag_set! {
    /// Flags of msync(2).
    MsyncFlags: u32, MSYNC_FLAGS {
        MS_ASYNC = 0x1,
        MS_INVALIDATE = 0x2,
        MS_SYNC = 0x4,
    }
}

flag_set! {
    /// Flags of mlockall(2).
    MlockallFlags: u32, MLOCKALL_FLAGS {
        MCL_CURRENT = 0x1,
        MCL_FUTURE = 0x2,
        MCL_ONFAULT = 0x4,
    }
}

flag_set! {
    /// Flags of mlock2(2).
    Mlock2Flags: u32, MLOCK2_FLAGS {
        MLOCK_ONFAULT = 0x1,
    }
}

const_set! {
    /// Advice of madvise(2).
    MADVICE: u32 {
        MADV_NORMAL = 0,
        MADV_RANDOM = 1,
        MADV_SEQUENTIAL = 2,
        MADV_WILLNEED = 3,
        MADV_DONTNEED = 4,
        MADV_FREE = 8,
        MADV_REMOVE = 9,
        MADV_DONTFORK = 10,
        MADV_DOFORK = 11,
        MADV_MERGEABLE = 12,
        MADV_UNMERGEABLE = 13,
        MADV_HUGEPAGE = 14,
        MADV_NOHUGEPAGE = 15,
        MADV_DONTDUMP = 16,
        MADV_DODUMP = 17,
        MADV_WIPEONFORK = 18,
        MADV_KEEPONFORK = 19,
        MADV_COLD = 20,
        MADV_PAGEOUT = 21,
        MADV_POPULATE_READ = 22,
        MADV_POPULATE_WRITE = 23,
        MADV_DONTNEED_LOCKED = 24,
        MADV_COLLAPSE = 25,
        MADV_HWPOISON = 100,
        MADV_SOFT_OFFLINE = 101,
        MADV_GUARD_INSTALL = 102,
        MADV_GUARD_REMOVE = 103,
    }
}

const_set! {
    /// Modes of set_mempolicy(2).
    MEMPOLICIES: u32 {
        MPOL_DEFAULT = 0,
        MPOL_PREFERRED = 1,
        MPOL_BIND = 2,
        MPOL_INTERLEAVE = 3,
        MPOL_LOCAL = 4,
        MPOL_PREFERRED_MANY = 5,
        MPOL_WEIGHTED_INTERLEAVE = 6,
    }
}

flag_set! {
    /// Flags of get_mempolicy(2).
    GetMempolicyFlags: u32, GET_MEMPOLICY_FLAGS {
        MPOL_F_NODE = 0x1,
        MPOL_F_ADDR = 0x2,
        MPOL_F_MEMS_ALLOWED = 0x4,
    }
}

// Flags in the mode of set_mempolicy(2).
pub const MPOL_F_STATIC_NODES: u32 = 0x8000;
pub const MPOL_F_RELATIVE_NODES: u32 = 0x4000;

/// Page size.
pub const PAGE_SIZE: u64 = 4096;
/// First address beyond user space with 4-level page tables (one guard page
/// below 2^47).
pub const TASK_SIZE: u64 = 0x7fff_ffff_f000;
