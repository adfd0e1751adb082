//! One readable line per system call, decoded through the table, in the
//! manner of strace(1).
//!
//! A call is formatted in two parts: [`enter`] decodes what the call reads,
//! while the memory still holds it (execve(2) replaces it), [`Entered::finish`]
//! adds what the call wrote and the result.
//!
//! Memory is read through [`Memory`]. Where reading is asynchronous, [`Gather`]
//! notes what is wanted, and formatting is repeated when it is there.

mod args;
mod gather;
mod message;
mod signals;
mod sockaddr;
mod structs;
mod text;

pub use gather::{Gather, PIECE_MAX};
pub use signals::siginfo;

use crate::Errno;
use crate::table::{Kind, Ret, Syscall, by_number};
use args::{Phase, format_arg};

/// Access to the memory of the program that made the call.
pub trait Memory {
    /// The bytes from `addr` on, at most `len` of them; fewer if the rest is
    /// not accessible, `None` if nothing is.
    fn read(&mut self, addr: u64, len: usize) -> Option<Vec<u8>>;
}

/// How much to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Bytes of buffers; paths are printed whole.
    pub max_string: usize,
    /// Elements of arrays.
    pub max_array: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_string: 32,
            max_array: 32,
        }
    }
}

/// What an argument's place in the line holds after entry.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    /// Decoded.
    Done(String),
    /// Written by the call; the text of what it held before, if that counts.
    Pending(Option<String>),
    /// Not printed.
    Skip,
}

/// A call that has been entered.
#[derive(Clone, Debug)]
pub struct Entered {
    number: u64,
    args: [u64; 6],
    parts: Vec<Part>,
}

/// Decodes what the call reads.
pub fn enter(number: u64, args: &[u64; 6], memory: &mut dyn Memory, options: &Options) -> Entered {
    let parts = match by_number(number) {
        Some(call) => call
            .args
            .iter()
            .enumerate()
            .map(|(index, arg)| format_arg(arg, index, args, Phase::Enter, memory, options))
            .collect(),
        None => args.iter().map(|&arg| Part::Done(text::hex(arg))).collect(),
    };
    Entered {
        number,
        args: *args,
        parts,
    }
}

impl Entered {
    /// The call's row, if there is one.
    pub fn call(&self) -> Option<&'static Syscall> {
        by_number(self.number)
    }

    fn name(&self) -> String {
        match self.call() {
            Some(call) => call.name.to_owned(),
            None => format!("syscall_{:#x}", self.number),
        }
    }

    /// The line's beginning, up to the first argument that the call writes:
    /// `read(3, `.
    pub fn begun(&self) -> String {
        let mut line = self.name();
        line.push('(');
        let mut first = true;
        for part in &self.parts {
            match part {
                Part::Done(text) => {
                    if !first {
                        line.push_str(", ");
                    }
                    line.push_str(text);
                }
                Part::Skip => continue,
                Part::Pending(_) => {
                    if !first {
                        line.push_str(", ");
                    }
                    return line;
                }
            }
            first = false;
        }
        line
    }

    /// The line of a call that has not returned: `read(3,  <unfinished ...>`.
    pub fn unfinished(&self) -> String {
        format!("{} <unfinished ...>", self.begun())
    }

    /// The rest of the line after [`Self::begun`], with the result as the
    /// kernel returns it in `rax`: `"abc", 10) = 3`.
    pub fn rest(&self, result: u64, memory: &mut dyn Memory, options: &Options) -> String {
        let whole = self.finish(result, memory, options);
        match whole.strip_prefix(&self.begun()) {
            Some(rest) => rest.to_owned(),
            None => whole,
        }
    }

    /// The line that follows [`Self::unfinished`]: `<... read resumed>"abc", 10) = 3`.
    pub fn resumed(&self, result: u64, memory: &mut dyn Memory, options: &Options) -> String {
        format!(
            "<... {} resumed>{}",
            self.name(),
            self.rest(result, memory, options)
        )
    }

    /// The whole line: `read(3, "abc", 10) = 3`.
    pub fn finish(&self, result: u64, memory: &mut dyn Memory, options: &Options) -> String {
        let call = self.call();
        let failed = error_of(result).is_some();
        let mut texts = Vec::with_capacity(self.parts.len());
        for (index, part) in self.parts.iter().enumerate() {
            let text = match part {
                Part::Skip => continue,
                Part::Done(text) => text.clone(),
                Part::Pending(before) => {
                    let arg = call.and_then(|call| call.args.get(index));
                    let phase = Phase::Exit { result, failed };
                    let after =
                        arg.map(|arg| format_arg(arg, index, &self.args, phase, memory, options));
                    // An array's elements show both sides themselves.
                    let array = arg.is_some_and(|arg| matches!(arg.kind, Kind::InOutArray(..)));
                    match (before, after) {
                        (Some(before), Some(Part::Done(after))) if !array => {
                            changed(before, &after)
                        }
                        (Some(_), Some(Part::Done(after))) => after,
                        (Some(before), _) => before.clone(),
                        (None, Some(Part::Done(after))) => after,
                        (None, _) => text::hex(self.args.get(index).copied().unwrap_or(0)),
                    }
                }
            };
            texts.push(text);
        }
        let ret = call.map_or(Ret::Int, |call| call.ret);
        format!(
            "{}({}) = {}",
            self.name(),
            texts.join(", "),
            format_result(result, ret)
        )
    }

    /// The line of a call that does not return (exit(2), execve(2) that
    /// succeeded while others were watching): `exit(0) = ?`.
    pub fn never(&self) -> String {
        let texts: Vec<_> = self
            .parts
            .iter()
            .zip(self.args)
            .filter_map(|(part, value)| match part {
                Part::Done(text) => Some(text.clone()),
                Part::Pending(before) => Some(before.clone().unwrap_or_else(|| text::hex(value))),
                Part::Skip => None,
            })
            .collect();
        format!("{}({}) = ?", self.name(), texts.join(", "))
    }
}

/// A value that the call read and wrote: `[28 => 16]`.
fn changed(before: &str, after: &str) -> String {
    if before == after {
        return before.to_owned();
    }
    let inner = |text: &'_ str| -> Option<String> {
        Some(text.strip_prefix('[')?.strip_suffix(']')?.to_owned())
    };
    match (inner(before), inner(after)) {
        (Some(before), Some(after)) => format!("[{before} => {after}]"),
        _ => format!("{before} => {after}"),
    }
}

/// The error in a result register.
pub fn error_of(result: u64) -> Option<Errno> {
    let negated = result.wrapping_neg();
    if (1..4096).contains(&negated) {
        Some(Errno::from_raw(negated as i32))
    } else {
        None
    }
}

/// The result after the ` = `.
pub fn format_result(result: u64, ret: Ret) -> String {
    if let Some(errno) = error_of(result) {
        return if errno.is_restart() {
            format!("? {errno}")
        } else {
            format!("-1 {errno}")
        };
    }
    match ret {
        Ret::Int | Ret::Size => (result as i64).to_string(),
        Ret::Fd | Ret::Pid => (result as i32).to_string(),
        Ret::Addr | Ret::Hex => text::hex(result),
        Ret::Octal => text::octal(result),
        Ret::Never => "?".to_owned(),
    }
}

/// Enters and finishes at once, for a caller that has the memory as it was
/// before and after in one place.
pub fn line(
    number: u64,
    args: &[u64; 6],
    result: u64,
    memory: &mut dyn Memory,
    options: &Options,
) -> String {
    let entered = enter(number, args, memory, options);
    match entered.call().map(|call| call.ret) {
        Some(Ret::Never) => entered.never(),
        _ => entered.finish(result, memory, options),
    }
}

/// Whether an argument is decoded at exit.
fn is_output(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::OutBuf(_)
            | Kind::OutBufFull(_)
            | Kind::OutDirents(_)
            | Kind::OutSockOpt(_)
            | Kind::Out(_)
            | Kind::InOut(_)
            | Kind::OutArray(..)
            | Kind::InOutArray(..)
            | Kind::OutIovec(_)
            | Kind::OutSockAddr(_)
            | Kind::OutMsg
            | Kind::OutMmsg(_)
            | Kind::OutName
    )
}

#[cfg(test)]
mod tests;
