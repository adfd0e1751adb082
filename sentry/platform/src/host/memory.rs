//! Memory of this process that it can do without.

use std::ffi::{c_int, c_void};

/// Gives back what starting has taken: free heap, and pages of the program's
/// text and constants, which come back from the page cache as they are used.
pub fn trim() {
    // SAFETY: trims the allocator's arenas under their own locks.
    unsafe { libc::malloc_trim(0) };
    release_text();
}

/// The second half of [`trim`].
pub fn release_text() {
    // SAFETY: the callback keeps to what dl_iterate_phdr(3) hands to it.
    unsafe { libc::dl_iterate_phdr(Some(release_segments), std::ptr::null_mut()) };
}

/// Releases the read-only segments of the first object, the program itself.
///
/// # Safety
/// `info` is one of `dl_iterate_phdr`.
unsafe extern "C" fn release_segments(
    info: *mut libc::dl_phdr_info,
    _: usize,
    _: *mut c_void,
) -> c_int {
    const PAGE: u64 = 4096;
    // SAFETY: the caller's promise; the headers are those of a loaded object.
    let (base, headers) = unsafe {
        let info = &*info;
        let count = usize::from(info.dlpi_phnum);
        let headers = std::slice::from_raw_parts(info.dlpi_phdr, count);
        (info.dlpi_addr, headers)
    };
    for header in headers {
        if header.p_type != libc::PT_LOAD || header.p_flags & libc::PF_W != 0 {
            continue;
        }
        let start = base.wrapping_add(header.p_vaddr);
        let end = start.wrapping_add(header.p_memsz).next_multiple_of(PAGE);
        let start = start & !(PAGE - 1);
        let (Ok(addr), Ok(len)) = (
            usize::try_from(start),
            usize::try_from(end.saturating_sub(start)),
        ) else {
            continue;
        };
        let addr = std::ptr::without_provenance_mut(addr);
        // SAFETY: nobody has ever written to this private mapping of a file:
        // what is read there next is the same. A failure only wastes memory.
        unsafe { libc::madvise(addr, len, libc::MADV_DONTNEED) };
    }
    // No further objects: others use the same pages of libraries.
    1
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_program_goes_on_after_trim() {
        let text = String::from("constants and text come back");
        super::trim();
        assert_eq!(text, "constants and text come back");
    }
}
