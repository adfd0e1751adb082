//! Signal names.

use nix::sys::signal::Signal;

/// Highest signal number.
const SIGRTMAX: i32 = 64;

/// Number of a signal given as `TERM`, `SIGTERM`, `sigterm` or `15`.
pub fn parse(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (0..=SIGRTMAX).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(offset) = bare.strip_prefix("RTMIN") {
        let offset: i32 = match offset.strip_prefix('+') {
            Some(offset) => offset.parse().ok()?,
            None if offset.is_empty() => 0,
            None => return None,
        };
        let number = 34_i32.checked_add(offset)?;
        return (34..=SIGRTMAX).contains(&number).then_some(number);
    }
    format!("SIG{bare}")
        .parse::<Signal>()
        .ok()
        .map(|signal| signal as i32)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn names_and_numbers() {
        assert_eq!(parse("KILL"), Some(9));
        assert_eq!(parse("sigterm"), Some(15));
        assert_eq!(parse("10"), Some(10));
        assert_eq!(parse("SIGRTMIN+3"), Some(37));
        assert_eq!(parse("65"), None);
        assert_eq!(parse("NOSUCH"), None);
    }
}
