//! The strings of `execve`.

use syscall_tables::Errno;

use crate::ctx::Ctx;
use crate::user::UserPtr;

/// Longest single argument with its NUL (`MAX_ARG_STRLEN`).
const MAX_STRING_LEN: usize = 128 << 10;
/// Most strings in one vector (`MAX_ARG_STRINGS`).
const MAX_STRINGS: usize = 0x7fff_ffff;
/// Room that arguments always have (`ARG_MAX`).
const MIN_TOTAL: u64 = 128 << 10;
/// Room that arguments have at most, three quarters of the default stack.
const MAX_TOTAL: u64 = 6 << 20;

/// Arguments and environment of a new program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arguments {
    /// The path as the caller gave it (`AT_EXECFN`, the script's argument,
    /// and by its last component the command name).
    pub filename: Vec<u8>,
    pub argv: Vec<Vec<u8>>,
    pub envp: Vec<Vec<u8>>,
}

impl Arguments {
    /// Room for strings and pointers under a stack limit.
    pub fn room(stack_limit: u64) -> u64 {
        (stack_limit / 4).clamp(MIN_TOTAL, MAX_TOTAL)
    }

    /// Bytes that strings and pointers take on the new stack.
    pub fn size_bytes(&self) -> u64 {
        let strings = self.argv.iter().chain(&self.envp);
        let count = self.argv.len().max(1) + self.envp.len();
        let bytes: usize = strings.map(|string| string.len() + 1).sum();
        let bytes = bytes + self.filename.len() + 1 + count * 8;
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    /// `E2BIG` if the stack limit leaves no room for the arguments.
    pub fn check_size(&self, stack_limit: u64) -> Result<(), Errno> {
        if self.size_bytes() > Self::room(stack_limit) {
            return Err(Errno::E2BIG);
        }
        Ok(())
    }

    /// Reads the vectors of `execve` from the caller's memory. As Linux does
    /// since 5.18, an empty `argv` becomes one with an empty string.
    pub async fn read(
        ctx: &mut Ctx<'_>,
        filename: Vec<u8>,
        argv: u64,
        envp: u64,
        stack_limit: u64,
    ) -> Result<Self, Errno> {
        let mut room = Self::room(stack_limit);
        let mut arguments = Self {
            filename,
            argv: read_vector(ctx, argv, &mut room).await?,
            envp: read_vector(ctx, envp, &mut room).await?,
        };
        if arguments.argv.is_empty() {
            arguments.argv.push(Vec::new());
        }
        arguments.check_size(stack_limit)?;
        Ok(arguments)
    }
}

/// Reads a NUL-terminated vector of strings, taking their size from `room`.
async fn read_vector(
    ctx: &mut Ctx<'_>,
    vector: u64,
    room: &mut u64,
) -> Result<Vec<Vec<u8>>, Errno> {
    /// Pointers fetched at once.
    const BLOCK: usize = 64;
    let mut strings = Vec::new();
    if vector == 0 {
        return Ok(strings);
    }
    let mut at = vector;
    loop {
        let mut block = [0u8; BLOCK * 8];
        let got = ctx.read_partial(at, &mut block).await;
        let whole = block.get(..got).unwrap_or_default();
        let mut complete = 0;
        for pointer in whole.chunks_exact(8) {
            complete += 1;
            let mut raw = [0; 8];
            raw.copy_from_slice(pointer);
            let pointer = UserPtr::<u8>::new(u64::from_le_bytes(raw));
            if pointer.is_null() {
                return Ok(strings);
            }
            if strings.len() >= MAX_STRINGS {
                return Err(Errno::E2BIG);
            }
            let string = ctx
                .read_str(pointer.addr, MAX_STRING_LEN, Errno::E2BIG)
                .await?;
            let size = u64::try_from(string.len() + 1 + 8).map_err(|_| Errno::E2BIG)?;
            *room = room.checked_sub(size).ok_or(Errno::E2BIG)?;
            strings.push(string);
        }
        if complete < BLOCK {
            return Err(Errno::EFAULT);
        }
        at = at.checked_add(BLOCK as u64 * 8).ok_or(Errno::EFAULT)?;
    }
}
