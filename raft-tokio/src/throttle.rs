//! Keeps what fails a thousand times a second from writing a thousand lines a second.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lets the first of equal messages pass, and then one each [`INTERVAL`].
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    seen: Mutex<BTreeMap<String, Seen>>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    last: Instant,
    suppressed: u64,
}

impl Throttle {
    /// Whether to write a message about `subject` now; says how many were left out since the last one.
    pub(crate) fn admit(&self, subject: &str, now: Instant) -> Option<u64> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = seen.get_mut(subject) {
            if now.saturating_duration_since(known.last) < INTERVAL {
                known.suppressed += 1;
                return None;
            }
            let suppressed = std::mem::take(&mut known.suppressed);
            known.last = now;
            return Some(suppressed);
        }
        if seen.len() >= SUBJECTS_MAX {
            seen.retain(|_, known| now.saturating_duration_since(known.last) < INTERVAL);
        }
        // Strangers choose some subjects: rather silent than without bound.
        if seen.len() >= SUBJECTS_MAX {
            return None;
        }
        seen.insert(subject.to_owned(), Seen { last: now, suppressed: 0 });
        Some(0)
    }
}

const INTERVAL: Duration = Duration::from_secs(10);
const SUBJECTS_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_messages_are_counted_instead_of_written() {
        let throttle = Throttle::default();
        let start = Instant::now();
        assert_eq!(throttle.admit("n2", start), Some(0));
        assert_eq!(throttle.admit("n2", start + INTERVAL / 2), None);
        assert_eq!(throttle.admit("n3", start + INTERVAL / 2), Some(0));
        assert_eq!(throttle.admit("n2", start + INTERVAL), Some(1));
        assert_eq!(throttle.admit("n2", start + INTERVAL * 2), Some(0));
    }

    #[test]
    fn many_subjects_do_not_grow_it_without_bound() {
        let throttle = Throttle::default();
        let start = Instant::now();
        for subject in 0..2 * SUBJECTS_MAX {
            throttle.admit(&subject.to_string(), start);
        }
        assert_eq!(throttle.admit("late", start), None);
        assert_eq!(throttle.admit("later", start + INTERVAL), Some(0));
    }
}
