//! `known-failures.txt`: what does not pass yet, each with its reason.
//!
//! A line is `PLATFORM NAME REASON…`; PLATFORM is `systrap`, `ptrace` or
//! `any`; a `?` behind the platform marks a check that fails only sometimes.

use std::collections::HashMap;
use std::path::Path;

#[derive(Default)]
pub struct Known {
    entries: HashMap<(String, String), (String, bool)>,
}

impl Known {
    pub fn load(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
        Self::parse(&text)
    }

    pub fn parse(text: &str) -> Result<Self, String> {
        let mut entries = HashMap::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let mut parts = line.splitn(3, char::is_whitespace);
            let (Some(platform), Some(name), Some(reason)) =
                (parts.next(), parts.next(), parts.next())
            else {
                return Err(format!(
                    "known-failures.txt:{}: needs platform, name and reason",
                    number + 1
                ));
            };
            let (platform, flaky) = match platform.strip_suffix('?') {
                Some(p) => (p, true),
                None => (platform, false),
            };
            entries.insert(
                (platform.to_owned(), name.to_owned()),
                (reason.trim().to_owned(), flaky),
            );
        }
        Ok(Self { entries })
    }

    fn entry(&self, platform: &str, name: &str) -> Option<&(String, bool)> {
        if platform == "native" || platform == "-" {
            return None;
        }
        self.entries
            .get(&(platform.to_owned(), name.to_owned()))
            .or_else(|| self.entries.get(&("any".to_owned(), name.to_owned())))
    }

    pub fn reason(&self, platform: &str, name: &str) -> Option<&str> {
        self.entry(platform, name).map(|e| e.0.as_str())
    }

    pub fn flaky(&self, platform: &str, name: &str) -> bool {
        self.entry(platform, name).is_some_and(|e| e.1)
    }
}

#[cfg(test)]
mod tests {
    use super::Known;

    #[test]
    fn entries_need_a_reason() {
        assert!(Known::parse("systrap mm/x\n").is_err());
        let known =
            Known::parse("# none\n\nany? mm/x late wake\nptrace a b c d\n").unwrap_or_default();
        assert_eq!(known.reason("systrap", "mm/x"), Some("late wake"));
        assert!(known.flaky("systrap", "mm/x"));
        assert_eq!(known.reason("ptrace", "a"), Some("b c d"));
        assert_eq!(known.reason("systrap", "a"), None);
        assert_eq!(known.reason("native", "mm/x"), None);
    }
}
