//! 64-bit ELF headers and the auxiliary vector.

use super::names::{const_set, flag_set};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `Elf64_Ehdr`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct ElfHeader {
    pub e_ident: [u8; 16],
    pub e_type: u16,
    pub e_machine: u16,
    pub e_version: u32,
    pub e_entry: u64,
    pub e_phoff: u64,
    pub e_shoff: u64,
    pub e_flags: u32,
    pub e_ehsize: u16,
    pub e_phentsize: u16,
    pub e_phnum: u16,
    pub e_shentsize: u16,
    pub e_shnum: u16,
    pub e_shstrndx: u16,
}

/// `Elf64_Phdr`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct ElfProgramHeader {
    pub p_type: u32,
    pub p_flags: u32,
    pub p_offset: u64,
    pub p_vaddr: u64,
    pub p_paddr: u64,
    pub p_filesz: u64,
    pub p_memsz: u64,
    pub p_align: u64,
}

/// `Elf64_Shdr`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct ElfSectionHeader {
    pub sh_name: u32,
    pub sh_type: u32,
    pub sh_flags: u64,
    pub sh_addr: u64,
    pub sh_offset: u64,
    pub sh_size: u64,
    pub sh_link: u32,
    pub sh_info: u32,
    pub sh_addralign: u64,
    pub sh_entsize: u64,
}

/// `Elf64_Nhdr`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct ElfNoteHeader {
    pub n_namesz: u32,
    pub n_descsz: u32,
    pub n_type: u32,
}

/// First bytes of an ELF file.
pub const ELFMAG: [u8; 4] = *b"\x7fELF";
/// Indices of `e_ident`.
pub const EI_CLASS: usize = 4;
/// Index of the byte order.
pub const EI_DATA: usize = 5;
/// Index of the header version.
pub const EI_VERSION: usize = 6;
/// Index of the ABI.
pub const EI_OSABI: usize = 7;

// Values of `e_ident`.
pub const ELFCLASS32: u8 = 1;
pub const ELFCLASS64: u8 = 2;
pub const ELFDATA2LSB: u8 = 1;
pub const ELFDATA2MSB: u8 = 2;
pub const EV_CURRENT: u8 = 1;

const_set! {
    /// `e_type`.
    ELF_TYPES: u16 {
        ET_NONE = 0,
        ET_REL = 1,
        ET_EXEC = 2,
        ET_DYN = 3,
        ET_CORE = 4,
    }
}

// `e_machine`.
pub const EM_386: u16 = 3;
pub const EM_X86_64: u16 = 62;
pub const EM_AARCH64: u16 = 183;

const_set! {
    /// `p_type`.
    SEGMENT_TYPES: u32 {
        PT_NULL = 0x0,
        PT_LOAD = 0x1,
        PT_DYNAMIC = 0x2,
        PT_INTERP = 0x3,
        PT_NOTE = 0x4,
        PT_SHLIB = 0x5,
        PT_PHDR = 0x6,
        PT_TLS = 0x7,
        PT_GNU_EH_FRAME = 0x6474e550,
        PT_GNU_STACK = 0x6474e551,
        PT_GNU_RELRO = 0x6474e552,
        PT_GNU_PROPERTY = 0x6474e553,
    }
}

flag_set! {
    /// `p_flags`.
    SegmentFlags: u32, SEGMENT_FLAGS {
        PF_X = 0x1,
        PF_W = 0x2,
        PF_R = 0x4,
    }
}

const_set! {
    /// Types of the auxiliary vector.
    AUXV: u64 {
        AT_NULL = 0,
        AT_IGNORE = 1,
        AT_EXECFD = 2,
        AT_PHDR = 3,
        AT_PHENT = 4,
        AT_PHNUM = 5,
        AT_PAGESZ = 6,
        AT_BASE = 7,
        AT_FLAGS_ENTRY = 8,
        AT_ENTRY = 9,
        AT_NOTELF = 10,
        AT_UID = 11,
        AT_EUID = 12,
        AT_GID = 13,
        AT_EGID = 14,
        AT_PLATFORM = 15,
        AT_HWCAP = 16,
        AT_CLKTCK = 17,
        AT_SECURE = 23,
        AT_BASE_PLATFORM = 24,
        AT_RANDOM = 25,
        AT_HWCAP2 = 26,
        AT_RSEQ_FEATURE_SIZE = 27,
        AT_RSEQ_ALIGN = 28,
        AT_HWCAP3 = 29,
        AT_HWCAP4 = 30,
        AT_EXECFN = 31,
        AT_SYSINFO_EHDR = 33,
        AT_MINSIGSTKSZ = 51,
    }
}
