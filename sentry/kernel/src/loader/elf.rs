//! ELF headers of an executable or its interpreter, checked. Nothing here
//! trusts the file: sizes are bounded and all sums are checked.

use std::ops::Range;
use std::sync::Arc;

use sentry_platform::Protection;
use syscall_tables::Errno;
use syscall_tables::abi::{
    EI_CLASS, EI_DATA, ELFCLASS64, ELFDATA2LSB, ELFMAG, EM_X86_64, ET_DYN, ET_EXEC, ElfHeader,
    ElfProgramHeader, PT_GNU_STACK, PT_INTERP, PT_LOAD, SegmentFlags,
};
use zerocopy::FromBytes;

use crate::mm::{PAGE_SIZE, page_ceil, page_floor};
use crate::vfs::File;

/// Most bytes of program headers.
const MAX_HEADERS_LEN: usize = 65_536;
/// Longest interpreter path with its NUL.
const MAX_INTERPRETER_LEN: u64 = 4096;

/// A segment to be mapped, relative to the load bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    pub addr: u64,
    pub offset: u64,
    pub file_len: u64,
    pub mem_len: u64,
    pub protection: Protection,
}

impl Segment {
    /// Pages it covers.
    pub fn pages(&self) -> Range<u64> {
        // Sums were checked when it was parsed.
        let end = self.addr.saturating_add(self.mem_len);
        page_floor(self.addr)..page_ceil(end).unwrap_or(page_floor(end))
    }
}

/// An ELF file that can be mapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elf {
    /// Position independent (`ET_DYN`).
    pub is_dynamic: bool,
    pub entry: u64,
    /// Ascending by file order, not empty.
    pub segments: Vec<Segment>,
    /// Address of the program headers, if a segment holds them.
    pub headers_addr: Option<u64>,
    pub header_count: u16,
    pub interpreter: Option<Vec<u8>>,
    /// `PT_GNU_STACK` asks for an executable stack.
    pub has_exec_stack: bool,
    /// Alignment of the whole image, a power of two.
    pub align: u64,
}

/// Where bytes of an ELF file come from.
pub trait Source {
    /// Fills `buf` from `offset`, answering how many bytes there were.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize, Errno>;

    /// Size of the file.
    fn len_bytes(&self) -> Result<u64, Errno>;
}

impl Source for Arc<File> {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize, Errno> {
        let mut filled = 0;
        while let Some(rest) = buf.get_mut(filled..)
            && !rest.is_empty()
        {
            let at = offset.checked_add(filled as u64).ok_or(Errno::EINVAL)?;
            match self.ops.read_at(self, rest, at)? {
                0 => break,
                count => filled += count.min(rest.len()),
            }
        }
        Ok(filled)
    }

    fn len_bytes(&self) -> Result<u64, Errno> {
        Ok(self.attr()?.size_bytes)
    }
}

fn read_exact(source: &impl Source, len: usize, offset: u64) -> Result<Vec<u8>, Errno> {
    let mut bytes = vec![0; len];
    if source.read_at(&mut bytes, offset)? < len {
        return Err(Errno::ENOEXEC);
    }
    Ok(bytes)
}

impl Elf {
    /// Reads and checks the headers; `ENOEXEC` for whatever is no x86-64 ELF
    /// file that can be mapped within `guest`.
    pub fn parse(source: &impl Source, guest: &Range<u64>) -> Result<Self, Errno> {
        let head = read_exact(source, size_of::<ElfHeader>(), 0)?;
        let header = ElfHeader::read_from_bytes(&head).map_err(|_| Errno::ENOEXEC)?;
        let ident = &header.e_ident;
        let ident_is = |index: usize, value| ident.get(index) == Some(&value);
        if !ident.starts_with(&ELFMAG)
            || !ident_is(EI_CLASS, ELFCLASS64)
            || !ident_is(EI_DATA, ELFDATA2LSB)
            || header.e_machine != EM_X86_64
            || (header.e_type != ET_EXEC && header.e_type != ET_DYN)
            || usize::from(header.e_phentsize) != size_of::<ElfProgramHeader>()
        {
            return Err(Errno::ENOEXEC);
        }
        let headers_len = usize::from(header.e_phnum) * size_of::<ElfProgramHeader>();
        if headers_len == 0 || headers_len > MAX_HEADERS_LEN {
            return Err(Errno::ENOEXEC);
        }
        let headers = read_exact(source, headers_len, header.e_phoff)?;
        let file_len = source.len_bytes()?;
        let is_dynamic = header.e_type == ET_DYN;

        let mut elf = Self {
            is_dynamic,
            entry: header.e_entry,
            segments: Vec::new(),
            headers_addr: None,
            header_count: header.e_phnum,
            interpreter: None,
            has_exec_stack: false,
            align: PAGE_SIZE,
        };
        for bytes in headers.chunks_exact(size_of::<ElfProgramHeader>()) {
            let header_of_segment =
                ElfProgramHeader::read_from_bytes(bytes).map_err(|_| Errno::ENOEXEC)?;
            match header_of_segment.p_type {
                PT_LOAD => elf.add_segment(&header_of_segment, &header, file_len, guest)?,
                PT_INTERP if elf.interpreter.is_none() => {
                    elf.interpreter = Some(read_interpreter(source, &header_of_segment)?);
                }
                PT_GNU_STACK => {
                    elf.has_exec_stack = header_of_segment.p_flags & SegmentFlags::PF_X.bits() != 0;
                }
                _ => {}
            }
        }
        if elf.segments.is_empty() {
            return Err(Errno::ENOEXEC);
        }
        let span = elf.span();
        if is_dynamic && span.end - span.start > guest.end - guest.start {
            return Err(Errno::ENOMEM);
        }
        Ok(elf)
    }

    fn add_segment(
        &mut self,
        segment: &ElfProgramHeader,
        header: &ElfHeader,
        file_len: u64,
        guest: &Range<u64>,
    ) -> Result<(), Errno> {
        let bad = Errno::ENOEXEC;
        if segment.p_memsz == 0 {
            return Ok(());
        }
        let in_page = PAGE_SIZE - 1;
        let mem_end = segment.p_vaddr.checked_add(segment.p_memsz).ok_or(bad)?;
        let file_end = segment.p_offset.checked_add(segment.p_filesz).ok_or(bad)?;
        let last_page = page_ceil(mem_end).ok_or(bad)?;
        if segment.p_filesz > segment.p_memsz
            || (segment.p_filesz > 0
                && (file_end > file_len || segment.p_vaddr & in_page != segment.p_offset & in_page))
        {
            return Err(bad);
        }
        // A fixed image has to fit as it is; a dynamic one has at least to be
        // smaller than the whole range.
        let lowest = if self.is_dynamic { 0 } else { guest.start };
        if page_floor(segment.p_vaddr) < lowest || last_page > guest.end {
            return Err(bad);
        }
        let flags = SegmentFlags::from_bits_truncate(segment.p_flags);
        let mut protection = Protection::empty();
        protection.set(Protection::READ, flags.contains(SegmentFlags::PF_R));
        protection.set(Protection::WRITE, flags.contains(SegmentFlags::PF_W));
        protection.set(Protection::EXEC, flags.contains(SegmentFlags::PF_X));
        if self.headers_addr.is_none() && (segment.p_offset..file_end).contains(&header.e_phoff) {
            self.headers_addr = (header.e_phoff - segment.p_offset).checked_add(segment.p_vaddr);
        }
        // Alignment beyond a huge page would only lose randomness.
        if segment.p_align.is_power_of_two() {
            self.align = self.align.max(segment.p_align.min(1 << 30));
        }
        self.segments.push(Segment {
            addr: segment.p_vaddr,
            offset: segment.p_offset,
            file_len: segment.p_filesz,
            mem_len: segment.p_memsz,
            protection,
        });
        Ok(())
    }

    /// Pages from the first to the last segment, before the bias.
    pub fn span(&self) -> Range<u64> {
        let start = self.segments.iter().map(|segment| segment.pages().start);
        let end = self.segments.iter().map(|segment| segment.pages().end);
        start.min().unwrap_or(0)..end.max().unwrap_or(0)
    }
}

fn read_interpreter(source: &impl Source, header: &ElfProgramHeader) -> Result<Vec<u8>, Errno> {
    if header.p_filesz < 2 || header.p_filesz > MAX_INTERPRETER_LEN {
        return Err(Errno::ENOEXEC);
    }
    let len = usize::try_from(header.p_filesz).map_err(|_| Errno::ENOEXEC)?;
    let bytes = read_exact(source, len, header.p_offset)?;
    match bytes.split_last() {
        Some((0, _)) => {}
        _ => return Err(Errno::ENOEXEC),
    }
    let name = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
    if name.is_empty() {
        return Err(Errno::ENOEXEC);
    }
    Ok(name.to_vec())
}
