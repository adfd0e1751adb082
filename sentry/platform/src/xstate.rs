//! The XSAVE area in standard format (Intel SDM volume 1, chapter 13): what
//! guests and signal frames see as vector state.

/// Size of the legacy (FXSAVE) region, before the header.
const LEGACY_LEN_BYTES: usize = 512;
/// Size of the header behind it.
const HEADER_LEN_BYTES: usize = 64;
/// Legacy region and header, the least an area has.
pub const MIN_LEN_BYTES: usize = LEGACY_LEN_BYTES + HEADER_LEN_BYTES;
/// Offset of `MXCSR`.
const MXCSR_OFFSET: usize = 24;
/// `MXCSR` bits that every x86-64 CPU has; setting others faults.
pub const MXCSR_BITS: u32 = 0xffff;
/// x87 and SSE, which are always there.
pub const LEGACY_FEATURES: u64 = 3;

/// The state a fresh thread has: everything in its initial configuration.
pub fn initial(len_bytes: usize) -> Vec<u8> {
    let mut area = vec![0; len_bytes.max(MIN_LEN_BYTES)];
    put(&mut area, 0, &0x037f_u16.to_ne_bytes());
    put(&mut area, MXCSR_OFFSET, &0x1f80_u32.to_ne_bytes());
    put(&mut area, LEGACY_LEN_BYTES, &LEGACY_FEATURES.to_ne_bytes());
    area
}

/// Makes any bytes an area that `XRSTOR` takes without a fault: only
/// `features` present, standard format, reserved header bytes zero, only
/// `mxcsr_bits` set.
pub fn sanitize(area: &mut [u8], features: u64, mxcsr_bits: u32) {
    if let Some(bytes) = area
        .get_mut(MXCSR_OFFSET..)
        .and_then(<[u8]>::first_chunk_mut::<4>)
    {
        *bytes = (u32::from_ne_bytes(*bytes) & mxcsr_bits).to_ne_bytes();
    }
    if let Some(header) = area.get_mut(LEGACY_LEN_BYTES..MIN_LEN_BYTES)
        && let Some((bitmap, reserved)) = header.split_first_chunk_mut::<8>()
    {
        *bitmap = (u64::from_ne_bytes(*bitmap) & features).to_ne_bytes();
        reserved.fill(0);
    }
}

fn put(area: &mut [u8], offset: usize, bytes: &[u8]) {
    if let Some(place) = area.get_mut(offset..offset + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

/// AMX tile configuration and data: not offered to guests.
pub const AMX_FEATURES: u64 = 0b11 << 17;

/// Clears the bytes of the legacy region that the host uses for its own
/// notes and leaves to software (464 to 511).
pub fn clear_software_bytes(area: &mut [u8]) {
    if let Some(bytes) = area.get_mut(464..LEGACY_LEN_BYTES) {
        bytes.fill(0);
    }
}

/// Size of a standard-format area with `features` (CPUID leaf 0xD).
pub fn standard_len_bytes(features: u64) -> usize {
    let mut len_bytes = MIN_LEN_BYTES;
    for feature in 2..63 {
        if features & (1 << feature) != 0 {
            let leaf = std::arch::x86_64::__cpuid_count(0xd, feature);
            let (size, offset) = (leaf.eax as usize, leaf.ebx as usize);
            len_bytes = len_bytes.max(offset.saturating_add(size));
        }
    }
    len_bytes
}
