//! The guest's vDSO: a small ELF image (`stub/vdso.rs`) whose functions jump
//! into the host's vDSO.
//!
//! The host's vDSO is at the same place in all stubs, and its functions at the
//! same offsets as in the sentry's own, where they are looked up.

use std::ffi::CStr;
use std::os::fd::AsFd;

use syscall_tables::Errno;

use super::layout as l;
use super::shared::{self, Executable, SharedMap};
use crate::VdsoImage;

static IMAGE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/vdso.so"));

/// In the order of the table in the global page.
const FUNCTIONS: [&CStr; 5] = [
    c"__vdso_clock_gettime",
    c"__vdso_gettimeofday",
    c"__vdso_time",
    c"__vdso_getcpu",
    c"__vdso_clock_getres",
];

/// The image for the loader.
pub(super) fn image() -> Result<VdsoImage, Errno> {
    let len_bytes = u64::try_from(IMAGE.len()).map_err(|_| Errno::ENOMEM)?;
    let fd = shared::memfd(c"vdso", len_bytes, Executable::Yes)?;
    shared::fill(fd.as_fd(), 0, IMAGE)?;
    shared::seal(fd.as_fd(), shared::SEAL_ALL)?;
    Ok(VdsoImage {
        fd: fd.into(),
        len_bytes,
    })
}

/// Writes where the host's functions are in stubs; 0 for those it lacks.
pub(super) fn fill_table(global: &SharedMap, stub_vdso: Option<u64>) {
    let host = host_image().unwrap_or_default();
    for (name, index) in FUNCTIONS.iter().zip(0..) {
        let function = stub_vdso
            .zip(symbol(host, name))
            .map_or(0, |(base, offset)| base + offset);
        global.store(l::G_VDSO_TABLE + index * 8, function);
    }
}

/// The sentry's own vDSO.
fn host_image() -> Option<&'static [u8]> {
    // SAFETY: plain call.
    let base = unsafe { libc::getauxval(libc::AT_SYSINFO_EHDR) };
    let base = usize::try_from(base).ok().filter(|&base| base != 0)?;
    let start = std::ptr::with_exposed_provenance::<u8>(base);
    // SAFETY: the host maps the vDSO, whose first page holds its headers, for
    // the life of the process and never changes it.
    let headers = unsafe { std::slice::from_raw_parts(start, 4096) };
    let len = segments(headers)
        .filter(|segment| segment.kind == PT_LOAD)
        .map(|segment| segment.addr + segment.len)
        .max()?;
    let len = usize::try_from(len).ok()?;
    // SAFETY: as above, for all that its loadable segments span.
    Some(unsafe { std::slice::from_raw_parts(start, len) })
}

const PT_LOAD: u64 = 1;
const PT_DYNAMIC: u64 = 2;
const DT_STRTAB: u64 = 5;
const DT_SYMTAB: u64 = 6;
const SYMBOL_LEN: u64 = 24;

struct Segment {
    kind: u64,
    addr: u64,
    len: u64,
}

/// A little-endian number of `len` bytes; 0 beyond the end.
fn number(image: &[u8], offset: u64, len: usize) -> u64 {
    let mut bytes = [0; 8];
    let source = usize::try_from(offset)
        .ok()
        .and_then(|offset| image.get(offset..offset.checked_add(len)?));
    if let (Some(source), Some(bytes)) = (source, bytes.get_mut(..len)) {
        bytes.copy_from_slice(source);
    }
    u64::from_le_bytes(bytes)
}

fn segments(image: &[u8]) -> impl Iterator<Item = Segment> {
    let (headers, count) = (number(image, 32, 8), number(image, 56, 2));
    (0..count).map(move |index| {
        let at = headers + index * 56;
        Segment {
            kind: number(image, at, 4),
            addr: number(image, at + 16, 8),
            len: number(image, at + 40, 8),
        }
    })
}

/// Address of the function `name` in an image linked at 0.
fn symbol(image: &[u8], name: &CStr) -> Option<u64> {
    let dynamic = segments(image).find(|segment| segment.kind == PT_DYNAMIC)?;
    let entry = |tag| {
        (0..dynamic.len / 16)
            .map(|index| dynamic.addr + index * 16)
            .find(|&at| number(image, at, 8) == tag)
            .map(|at| number(image, at + 8, 8))
    };
    let (strings, symbols) = (entry(DT_STRTAB)?, entry(DT_SYMTAB)?);
    // Linkers put the strings behind the symbols.
    (0..strings.checked_sub(symbols)? / SYMBOL_LEN)
        .map(|index| symbols + index * SYMBOL_LEN)
        .find(|&at| {
            let start = strings + number(image, at, 4);
            let found = usize::try_from(start)
                .ok()
                .and_then(|start| image.get(start..))
                .and_then(|rest| CStr::from_bytes_until_nul(rest).ok());
            found == Some(name) && number(image, at + 6, 2) != 0
        })
        .map(|at| number(image, at + 8, 8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_found_in_the_hosts_and_in_our_own_vdso() {
        let host = host_image().expect("a host with a vDSO");
        for name in FUNCTIONS {
            assert!(symbol(IMAGE, name).is_some(), "{name:?}");
            assert!(symbol(host, name).is_some(), "{name:?}");
        }
        assert_eq!(symbol(host, c"__vdso_nonsense"), None);
    }
}
