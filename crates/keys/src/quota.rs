//! How many entries of the log strangers may cause: so many of a kind a minute, and then one that says how many more.
//!
//! It concerns only what no key comes of: evidence that was accepted or refused, and keys that were refused. Releases, leases
//! and what the operator does are noted one by one, always.

use std::sync::{Mutex, PoisonError};

use crate::audit::{Event, Note};

/// Seconds that are counted together.
const WINDOW: u64 = 60;
/// Entries of one kind in that time; each takes some 600 bytes.
const ENTRIES: u64 = 20;

/// Counts entries by their kind.
#[derive(Default)]
pub(crate) struct Quota(Mutex<Vec<Window>>);

struct Window {
    event: Event,
    began: u64,
    entries: u64,
    omitted: u64,
}

impl Quota {
    /// Whether an event is noted by an entry of its own.
    pub(crate) fn take(&self, event: Event, now: u64) -> bool {
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = windows.iter().position(|window| window.event == event).unwrap_or_else(|| {
            windows.push(Window { event, began: now, entries: 0, omitted: 0 });
            windows.len() - 1
        });
        let window = &mut windows[place];
        if window.entries < ENTRIES {
            window.entries += 1;
            return true;
        }
        window.omitted += 1;
        false
    }

    /// What is to be noted of the times that are over; `None` ends them all. They are not counted on.
    pub(crate) fn settle(&self, now: Option<u64>) -> Vec<Note> {
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A clock that was turned back ends one as well.
        let is_over = |window: &Window| now.is_none_or(|now| now.abs_diff(window.began) >= WINDOW);
        let over = windows.extract_if(.., |window| is_over(window));
        let with_more = over.filter(|window| window.omitted > 0);
        let note = |Window { event, began, omitted, .. }: Window| {
            let detail = format!("and {omitted} more from second {began} on, which are not noted one by one");
            Note::new(event, "", detail)
        };
        with_more.map(note).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_much_is_counted_by_kind() {
        let quota = Quota::default();
        let taken = |event, now, times: usize| (0..times).filter(|_| quota.take(event, now)).count();
        assert_eq!(taken(Event::AttestationRefused, 1000, 500), 20);
        assert_eq!(taken(Event::Refused, 1010, 3), 3, "another kind");
        assert!(quota.settle(Some(1059)).is_empty());
        assert_eq!(taken(Event::AttestationRefused, 1059, 1), 0);
        let notes = quota.settle(Some(1060));
        let [note] = notes.as_slice() else { panic!("{notes:?}") };
        assert_eq!((note.event, note.key.as_str()), (Event::AttestationRefused, ""));
        assert!(note.detail.starts_with("and 481 more from second 1000 on"), "{}", note.detail);
        assert_eq!(taken(Event::AttestationRefused, 1060, 30), 20, "a new minute");
        assert!(quota.settle(Some(1075)).is_empty(), "nothing was left out of the other kind");
        // A clock that was turned back, and the end.
        assert_eq!(quota.settle(Some(5)).len(), 1);
        assert_eq!(taken(Event::Attested, 5, 25), 20);
        assert_eq!(quota.settle(None).len(), 1);
        assert!(quota.settle(None).is_empty());
    }
}
