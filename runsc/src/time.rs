//! Dates for people and engines.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// `2006-01-02T15:04:05Z` (RFC 3339, UTC).
pub fn rfc3339(time: SystemTime) -> String {
    let secs = since_epoch(time).as_secs();
    let (days, rest) = (secs / 86_400, secs % 86_400);
    // Civil date from days since 1970-01-01, counting years from March so
    // that leap days come last (H. Hinnant's chrono algorithms).
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Seconds since the epoch, now.
pub fn now_secs() -> u64 {
    since_epoch(SystemTime::now()).as_secs()
}

pub fn from_epoch(secs: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(secs)
}

/// A number that differs between two calls in a row, for unique names.
pub fn nanos_of_day() -> u64 {
    let now = since_epoch(SystemTime::now());
    now.as_secs() % 86_400 * 1_000_000_000 + u64::from(now.subsec_nanos())
}

fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        assert_eq!(rfc3339(from_epoch(0)), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(from_epoch(951_782_400)), "2000-02-29T00:00:00Z");
        assert_eq!(rfc3339(from_epoch(1_709_251_199)), "2024-02-29T23:59:59Z");
        assert_eq!(rfc3339(from_epoch(4_102_444_800)), "2100-01-01T00:00:00Z");
    }
}
