//! Times as text.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use x509_cert::der::DateTime;

/// A time of RFC 3339 in UTC with whole seconds, `2025-07-01T00:00:00Z`, a date, `2025-07-01`, or seconds since 1970.
pub fn parse_time(text: &str) -> Option<SystemTime> {
    let since = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let with_time =
                if text.len() == "2025-07-01".len() { format!("{text}T00:00:00Z") } else { text.to_owned() };
            with_time.parse::<DateTime>().ok()?.unix_duration()
        }
    };
    UNIX_EPOCH.checked_add(since)
}

/// A time as text, in UTC.
pub fn time_text(at: SystemTime) -> String {
    let time = at.duration_since(UNIX_EPOCH).ok().and_then(|since| DateTime::from_unix_duration(since).ok());
    time.map_or("a time outside 1970 to 9999".to_owned(), |time| time.to_string())
}

/// Seconds since 1970 as text, in UTC.
pub fn seconds_text(seconds: u64) -> String {
    let at = UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
    at.map_or_else(|| format!("{seconds} s after 1970"), time_text)
}
