//! Registers as debuggers see them: `struct user` and register sets.

use syscall_tables::Errno;
use syscall_tables::abi::{Regs, USER_AREA_SIZE, USER_DEBUGREG_OFFSET};
use zerocopy::{FromBytes, IntoBytes};

/// Flags that a debugger may change.
const USER_FLAGS: u64 = 0x0004_0dd5 | 0x0001_0000 | 0x0000_0100 | 0x0000_0400 | 0x0000_0800;
const USER_CS: u64 = 0x33;
const USER_SS: u64 = 0x2b;

/// The word at `offset` of `struct user`.
pub fn user_area(regs: &Regs, offset: u64) -> Result<u64, Errno> {
    if !offset.is_multiple_of(8) || offset >= USER_AREA_SIZE {
        return Err(Errno::EIO);
    }
    let at = usize::try_from(offset).map_err(|_| Errno::EIO)?;
    let word = regs.as_bytes().get(at..at + 8);
    let word = word.and_then(|bytes| u64::read_from_bytes(bytes).ok());
    // The rest of the area reads as zero: nobody has used it for long.
    Ok(word.unwrap_or(0))
}

/// Stores a word of `struct user`.
pub fn write_user_area(
    regs: &mut Regs,
    guest_end: u64,
    offset: u64,
    value: u64,
) -> Result<(), Errno> {
    if !offset.is_multiple_of(8) || offset >= USER_AREA_SIZE {
        return Err(Errno::EIO);
    }
    if offset >= USER_DEBUGREG_OFFSET {
        // No hardware breakpoints; clearing them is fine.
        return if value == 0 { Ok(()) } else { Err(Errno::EIO) };
    }
    let at = usize::try_from(offset).map_err(|_| Errno::EIO)?;
    let mut new = *regs;
    let Some(slot) = new.as_mut_bytes().get_mut(at..at + 8) else {
        return Err(Errno::EIO);
    };
    slot.copy_from_slice(value.as_bytes());
    *regs = from_user_area(regs, &new, guest_end)?;
    Ok(())
}

/// What `old` becomes when a debugger stores `new`: selectors and system
/// flags stay; `EIO` for addresses that can't be.
pub fn from_user_area(old: &Regs, new: &Regs, guest_end: u64) -> Result<Regs, Errno> {
    if new.fs_base >= guest_end || new.gs_base >= guest_end {
        return Err(Errno::EIO);
    }
    // Selectors must be of user rank; code and stack need one.
    let selectors = [new.cs, new.ss, new.ds, new.es, new.fs, new.gs];
    let is_bad = |selector: &u64| *selector != 0 && selector & 3 != 3;
    if new.cs == 0 || new.ss == 0 || selectors.iter().any(is_bad) {
        return Err(Errno::EIO);
    }
    Ok(Regs {
        eflags: (old.eflags & !USER_FLAGS) | (new.eflags & USER_FLAGS),
        cs: USER_CS,
        ss: USER_SS,
        ds: old.ds,
        es: old.es,
        fs: old.fs,
        gs: old.gs,
        ..*new
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_where_debuggers_look() {
        let mut regs = Regs {
            cs: USER_CS,
            ss: USER_SS,
            ..Regs::default()
        };
        write_user_area(&mut regs, u64::MAX, 16 * 8, 0x1234).expect("rip");
        assert_eq!(regs.rip, 0x1234);
        assert_eq!(user_area(&regs, 16 * 8), Ok(0x1234));
        assert_eq!(user_area(&regs, 3), Err(Errno::EIO));
        assert_eq!(user_area(&regs, USER_AREA_SIZE), Err(Errno::EIO));
    }

    #[test]
    fn system_state_stays() {
        let mut regs = Regs {
            eflags: 0x202,
            cs: USER_CS,
            ss: USER_SS,
            ..Regs::default()
        };
        assert_eq!(
            write_user_area(&mut regs, u64::MAX, 17 * 8, 0x10),
            Err(Errno::EIO)
        );
        write_user_area(&mut regs, u64::MAX, 17 * 8, 0x23).expect("ignored");
        assert_eq!(regs.cs, USER_CS);
        write_user_area(&mut regs, u64::MAX, 18 * 8, u64::MAX).expect("some of it");
        assert_eq!(regs.eflags & 0x3000, 0, "no i/o privilege");
    }
}
