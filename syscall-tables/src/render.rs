//! The text of `runsc help syscalls`.

use std::fmt::Write;

use crate::table::{Status, TABLE};

/// How to print the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Aligned columns, with the counts at the end.
    #[default]
    Table,
    /// One JSON object: operating system, architecture, calls by number.
    Json,
    /// Comma-separated values with a header line.
    Csv,
}

impl std::str::FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(text: &str) -> Result<Self, UnknownFormat> {
        match text {
            "table" => Ok(Self::Table),
            "json" => Ok(Self::Json),
            "csv" => Ok(Self::Csv),
            _ => Err(UnknownFormat(text.to_owned())),
        }
    }
}

/// The format asked for does not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownFormat(String);

impl std::fmt::Display for UnknownFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "unknown format {:?}: use table, json or csv", self.0)
    }
}

impl std::error::Error for UnknownFormat {}

/// How many calls are supported how far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub full: usize,
    pub partial: usize,
    pub unimplemented: usize,
}

impl Counts {
    /// Counts of [`TABLE`].
    pub fn of_table() -> Self {
        let mut counts = Self::default();
        for call in &TABLE {
            match call.status {
                Status::Full => counts.full += 1,
                Status::Partial(_) => counts.partial += 1,
                Status::Unimplemented(_) => counts.unimplemented += 1,
            }
        }
        counts
    }
}

/// The table as text, ending in a newline.
pub fn syscalls(format: Format) -> String {
    match format {
        Format::Table => table(),
        Format::Json => json(),
        Format::Csv => csv(),
    }
}

/// The note of a status: what is missing, or the error answered.
fn note(status: Status) -> String {
    match status {
        Status::Full => String::new(),
        Status::Partial(missing) => missing.to_owned(),
        Status::Unimplemented(errno) => format!("returns {errno}"),
    }
}

fn table() -> String {
    let width = TABLE.iter().map(|call| call.name.len()).max().unwrap_or(0);
    let mut out = format!("{:>3}  {:width$}  {:13}  NOTE\n", "NUM", "NAME", "SUPPORT");
    for call in &TABLE {
        let line = format!(
            "{:>3}  {:width$}  {:13}  {}",
            call.number,
            call.name,
            call.status.label(),
            note(call.status)
        );
        out.push_str(line.trim_end());
        out.push('\n');
    }
    let counts = Counts::of_table();
    // Writing to a String does not fail.
    let _ = writeln!(
        out,
        "\n{} system calls of linux/amd64: {} full, {} partial, {} unimplemented",
        TABLE.len(),
        counts.full,
        counts.partial,
        counts.unimplemented
    );
    out
}

fn json() -> String {
    let counts = Counts::of_table();
    let mut out = format!(
        "{{\"linux\":{{\"amd64\":{{\"counts\":{{\"full\":{},\"partial\":{},\"unimplemented\":{}}},\"syscalls\":{{",
        counts.full, counts.partial, counts.unimplemented
    );
    for (i, call) in TABLE.iter().enumerate() {
        let comma = if i == 0 { "" } else { "," };
        let _ = write!(
            out,
            "{comma}\n\"{}\":{{\"num\":{},\"name\":\"{}\",\"support\":\"{}\",\"note\":\"{}\"}}",
            call.number,
            call.number,
            call.name,
            call.status.label(),
            json_escape(&note(call.status))
        );
    }
    out.push_str("\n}}}}\n");
    out
}

fn json_escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            c if c < ' ' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out
}

fn csv() -> String {
    let mut out = String::from("OS,Arch,Num,Name,Support,Note\n");
    for call in &TABLE {
        let note = note(call.status);
        let note = if note.contains([',', '"', '\n']) {
            format!("\"{}\"", note.replace('"', "\"\""))
        } else {
            note
        };
        let _ = writeln!(
            out,
            "linux,amd64,{},{},{},{note}",
            call.number,
            call.name,
            call.status.label()
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_has_every_call() {
        for format in [Format::Table, Format::Json, Format::Csv] {
            let text = syscalls(format);
            assert!(text.ends_with('\n'));
            for call in &TABLE {
                assert!(text.contains(call.name), "{format:?} lacks {}", call.name);
            }
        }
        assert_eq!(syscalls(Format::Csv).lines().count(), TABLE.len() + 1);
        let json = syscalls(Format::Json);
        assert_eq!(json.matches('{').count(), json.matches('}').count());
        assert_eq!(json.matches("\"num\":").count(), TABLE.len());
    }

    #[test]
    fn counts_add_up() {
        let counts = Counts::of_table();
        assert_eq!(
            counts.full + counts.partial + counts.unimplemented,
            TABLE.len()
        );
    }

    #[test]
    fn formats_by_name() {
        assert_eq!("json".parse(), Ok(Format::Json));
        assert!("xml".parse::<Format>().is_err());
        assert_eq!(json_escape("a\"b\\\n"), "a\\\"b\\\\\\u000a");
    }
}
