//! The first line of an interpreter script (execve(2), "Interpreter
//! scripts").

/// What the first line of a script says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    pub interpreter: Vec<u8>,
    /// All that follows the interpreter, as one argument.
    pub argument: Option<Vec<u8>>,
}

/// How much of a file is looked at.
pub const HEAD_LEN: usize = 256;

const fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

/// Parses the head of a file, at most [`HEAD_LEN`] bytes: `Ok(None)` if it is
/// no script, `Err(())` if it is one that can't be executed.
#[expect(clippy::result_unit_err, reason = "there is one way to fail")]
pub fn parse_script(head: &[u8]) -> Result<Option<Script>, ()> {
    let Some(rest) = head.strip_prefix(b"#!") else {
        return Ok(None);
    };
    let line = match rest.iter().position(|&byte| byte == b'\n') {
        Some(end) => rest.get(..end).unwrap_or_default(),
        // No line end within the head: a file that ends here is fine, and
        // else the path at least has to be complete.
        None if head.len() < HEAD_LEN => rest,
        None => {
            let start = rest.iter().position(|&byte| !is_blank(byte)).ok_or(())?;
            let name = rest.get(start..).unwrap_or_default();
            if !name.iter().any(|&byte| is_blank(byte) || byte == 0) {
                return Err(());
            }
            rest
        }
    };
    // A NUL ends everything.
    let line = line.split(|&byte| byte == 0).next().unwrap_or_default();
    let line = trim(line);
    if line.is_empty() {
        return Err(());
    }
    let name_len = line
        .iter()
        .position(|&byte| is_blank(byte))
        .unwrap_or(line.len());
    let (name, argument) = line.split_at(name_len);
    let argument = trim(argument);
    Ok(Some(Script {
        interpreter: name.to_vec(),
        argument: (!argument.is_empty()).then(|| argument.to_vec()),
    }))
}

fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = bytes
        && is_blank(*first)
    {
        bytes = rest;
    }
    while let [rest @ .., last] = bytes
        && is_blank(*last)
    {
        bytes = rest;
    }
    bytes
}
