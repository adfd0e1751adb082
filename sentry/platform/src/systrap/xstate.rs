//! Vector state: XSAVE areas in standard format (Intel SDM volume 1, 13.4).

use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};

use syscall_tables::Errno;

/// x87, SSE, AVX, AVX-512. Not PKRU (handlers need the default rights) and not
/// AMX (its permission is not granted to guests).
const SUPPORTED: u64 = 0xe7;
const LEGACY_LEN: usize = 512;
const HEADER_LEN: usize = 64;
const MXCSR: usize = 24;
const MXCSR_MASK: u32 = 0xffff;
const MXCSR_DEFAULT: u32 = 0x1f80;
const FCW_DEFAULT: u16 = 0x37f;
/// Reserved, and left to software: the host describes signal frames there.
const SOFTWARE: std::ops::Range<usize> = 416..512;

/// What of the vector state guests have.
#[derive(Clone, Copy, Debug)]
pub(super) struct VectorLayout {
    /// As `XCR0`.
    pub(super) features: u64,
    pub(super) len: usize,
    /// Offset and length of each component from 2 on.
    components: [(usize, usize); 8],
}

impl VectorLayout {
    /// That of this CPU.
    pub(super) fn detect() -> Result<Self, Errno> {
        const OSXSAVE: u32 = 1 << 27;
        const FSGSBASE: u32 = 1 << 0;
        if __cpuid(1).ecx & OSXSAVE == 0 || __cpuid_count(7, 0).ebx & FSGSBASE == 0 {
            return Err(Errno::ENODEV);
        }
        // SAFETY: OSXSAVE says that the instruction may be used.
        let enabled = unsafe { xcr0() };
        let features = enabled & SUPPORTED;
        let mut layout = Self {
            features,
            len: LEGACY_LEN + HEADER_LEN,
            components: [(0, 0); 8],
        };
        for (index, component) in (0u32..).zip(&mut layout.components).skip(2) {
            if features & (1 << index) != 0 {
                let leaf = __cpuid_count(0xd, index);
                *component = (leaf.ebx as usize, leaf.eax as usize);
                layout.len = layout.len.max(component.0 + component.1);
            }
        }
        Ok(layout)
    }

    /// The state a new program starts with.
    pub(super) fn initial(&self) -> Vec<u8> {
        let mut area = vec![0; self.len];
        self.sanitise(&mut area);
        area
    }

    /// Makes any bytes of the right length an area that `XRSTOR` takes, and
    /// gives components in their initial state their initial bytes.
    pub(super) fn sanitise(&self, area: &mut [u8]) {
        let present = u64_at(area, LEGACY_LEN) & self.features;
        zero(area, LEGACY_LEN, HEADER_LEN);
        put(area, LEGACY_LEN, &present.to_le_bytes());
        zero(area, SOFTWARE.start, SOFTWARE.len());
        let mxcsr = if present & 0b110 == 0 {
            MXCSR_DEFAULT
        } else {
            u32_at(area, MXCSR) & MXCSR_MASK
        };
        if present & 1 == 0 {
            zero(area, 0, MXCSR);
            zero(area, 32, 128);
            put(area, 0, &FCW_DEFAULT.to_le_bytes());
        }
        put(area, MXCSR, &mxcsr.to_le_bytes());
        put(area, MXCSR + 4, &MXCSR_MASK.to_le_bytes());
        if present & 2 == 0 {
            zero(area, 160, 256);
        }
        // Components lie in ascending order, maybe with gaps.
        let mut end = LEGACY_LEN + HEADER_LEN;
        for (index, &(offset, len)) in self.components.iter().enumerate().skip(2) {
            if present & (1 << index) != 0 {
                zero(area, end, offset.saturating_sub(end));
                end = offset + len;
            }
        }
        zero(area, end, area.len().saturating_sub(end));
    }
}

#[target_feature(enable = "xsave")]
fn xcr0() -> u64 {
    // SAFETY: register 0 exists where XSAVE does.
    unsafe { _xgetbv(0) }
}

fn zero(area: &mut [u8], offset: usize, len: usize) {
    if let Some(bytes) = area.get_mut(offset..offset + len) {
        bytes.fill(0);
    }
}

fn put(area: &mut [u8], offset: usize, value: &[u8]) {
    if let Some(bytes) = area.get_mut(offset..offset + value.len()) {
        bytes.copy_from_slice(value);
    }
}

fn bytes_at<const N: usize>(area: &[u8], offset: usize) -> [u8; N] {
    area.get(offset..)
        .and_then(|rest| rest.first_chunk())
        .copied()
        .unwrap_or([0; N])
}

fn u32_at(area: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(bytes_at(area, offset))
}

fn u64_at(area: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(bytes_at(area, offset))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn garbage_becomes_a_valid_area() {
        let layout = VectorLayout::detect().expect("a CPU with XSAVE");
        let mut area = vec![0xff; layout.len];
        layout.sanitise(&mut area);
        assert_eq!(u64_at(&area, 512), layout.features);
        assert!(area[520..576].iter().all(|&byte| byte == 0));
        assert_eq!(u32_at(&area, MXCSR), MXCSR_MASK);
        assert_eq!(area[160], 0xff);
    }

    #[test]
    fn absent_components_read_as_initial() {
        let layout = VectorLayout::detect().expect("a CPU with XSAVE");
        let mut area = vec![0xff; layout.len];
        area[512..520].fill(0);
        layout.sanitise(&mut area);
        assert!(area == layout.initial());
        assert_eq!(u32_at(&area, MXCSR), MXCSR_DEFAULT);
        assert_eq!(area[0..2], FCW_DEFAULT.to_le_bytes());
    }
}
