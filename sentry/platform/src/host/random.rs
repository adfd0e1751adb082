//! Random bytes of the host.

use syscall_tables::Errno;

/// Fills `dst` with random bytes (`getrandom(2)`).
pub fn fill(dst: &mut [u8]) -> Result<(), Errno> {
    let mut rest = dst;
    while !rest.is_empty() {
        // SAFETY: `rest` is a valid buffer of the length given.
        let count = unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) };
        match usize::try_from(count) {
            Ok(count) => rest = rest.get_mut(count..).unwrap_or_default(),
            Err(_) => {
                let error = Errno::from(std::io::Error::last_os_error());
                if error != Errno::EINTR {
                    return Err(error);
                }
            }
        }
    }
    Ok(())
}

/// A random number.
pub fn number() -> Result<u64, Errno> {
    let mut bytes = [0; 8];
    fill(&mut bytes)?;
    Ok(u64::from_ne_bytes(bytes))
}
