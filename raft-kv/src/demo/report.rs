//! The table at the end of a demo.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::leaders::Leaders;
use crate::cli::output::{grouped, table};
use crate::cli::writers::Acknowledgement;

/// The longest latency that is told apart from longer ones: ten minutes, in microseconds.
const MICROS_MAX: u64 = 600_000_000;

/// Measures the writes as they are acknowledged.
pub(crate) struct Measurements {
    started: Instant,
    latencies: Histogram<u64>,
    first: Option<Instant>,
    last: Option<Instant>,
    killed: Option<Kill>,
}

/// What is known of the moment at which the leader died.
#[derive(Clone, Copy, Debug)]
struct Kill {
    /// When the signal was sent.
    signalled: Instant,
    /// When the process was gone, so that nothing after it can come from the dead node.
    gone: Instant,
    /// The first acknowledgement of a write that was begun after that.
    next: Option<Instant>,
}

impl Measurements {
    /// Writing begins.
    pub(crate) fn begin() -> Self {
        Self {
            started: Instant::now(),
            latencies: Histogram::new_with_max(MICROS_MAX, 3).expect("because both numbers are supported"),
            first: None,
            last: None,
            killed: None,
        }
    }

    /// The leader was killed.
    pub(crate) fn killed(&mut self, signalled: Instant, gone: Instant) {
        self.killed = Some(Kill { signalled, gone, next: None });
    }

    /// A write was acknowledged. Returns true for the first one that began after the kill.
    pub(crate) fn acknowledged(&mut self, write: &Acknowledgement) -> bool {
        let micros = write.done.saturating_duration_since(write.begun).as_micros();
        self.latencies.saturating_record(u64::try_from(micros).unwrap_or(u64::MAX));
        self.first = Some(self.first.map_or(write.done, |first| first.min(write.done)));
        self.last = Some(self.last.map_or(write.done, |last| last.max(write.done)));
        // A write that was begun earlier may have been committed by the dead leader itself, its
        // answer still on the way: counting it would flatter the failover.
        match &mut self.killed {
            Some(kill @ Kill { next: None, .. }) if write.begun >= kill.gone => {
                kill.next = Some(write.done);
                true
            }
            Some(_) | None => false,
        }
    }

    /// From the kill to the next acknowledged write, once there was one.
    pub(crate) fn failover(&self) -> Option<Duration> {
        self.killed.and_then(|kill| Some(kill.next?.saturating_duration_since(kill.signalled)))
    }

    /// The table; `origin` is when the program started.
    pub(crate) fn table(&self, origin: Instant, leaders: &Leaders) -> String {
        let count = self.latencies.len();
        let spent = self.last.unwrap_or(self.started).saturating_duration_since(self.started).as_secs_f64();
        let per_second = count as f64 / spent.max(1e-9);
        let quantile = |q| millis(Duration::from_micros(self.latencies.value_at_quantile(q)));
        let first =
            self.first.map_or_else(|| "none".to_owned(), |first| millis(first.saturating_duration_since(origin)));
        let row = |name: &str, value: String, remark: &str| vec![name.to_owned(), value, remark.to_owned()];
        let mut rows = vec![
            row("first write", first, "after the start, acknowledged by a majority's disks"),
            row("writes", grouped(count), "each acknowledged, each applied exactly once"),
            row("writes/s", grouped(per_second as u64), "the failover included"),
            row("latency p50", quantile(0.5), ""),
            row("latency p99", quantile(0.99), "the failover included"),
            row("leaders elected", grouped(leaders.count()), &leaders.described()),
        ];
        rows.push(match self.failover() {
            Some(failover) => row("failover", millis(failover), "from the kill to the next acknowledged write"),
            None => row("failover", "–".to_owned(), "no write was left to begin after the kill"),
        });
        table(&["MEASURED", "VALUE", ""], &["VALUE"], rows)
    }
}

/// `0.42 ms`, `17.3 ms`, `312 ms`: three digits, whatever the size.
pub(crate) fn millis(duration: Duration) -> String {
    let millis = duration.as_secs_f64() * 1e3;
    match millis {
        ..10.0 => format!("{millis:.2} ms"),
        ..100.0 => format!("{millis:.1} ms"),
        _ => format!("{millis:.0} ms"),
    }
}

#[cfg(test)]
mod tests {
    use raft_kv::key::Revision;

    use super::*;

    #[test]
    fn only_a_write_begun_after_the_kill_ends_the_failover() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let write =
            |begun, done| Acknowledgement { nth: 0, revision: Revision::FIRST, begun: at(begun), done: at(done) };
        let mut measurements = Measurements::begin();
        assert!(!measurements.acknowledged(&write(0, 1)));
        measurements.killed(at(10), at(12));
        assert!(!measurements.acknowledged(&write(9, 13)), "its answer was on the way already");
        assert_eq!(measurements.failover(), None);
        assert!(measurements.acknowledged(&write(20, 250)));
        assert!(!measurements.acknowledged(&write(30, 251)));
        assert_eq!(measurements.failover(), Some(Duration::from_millis(240)));
        let table = measurements.table(start, &Leaders::default());
        for row in [
            "first write      1.00 ms",
            "writes                 4",
            "latency p99       230 ms",
            "failover          240 ms",
        ] {
            assert!(table.contains(row), "there is no \"{row}\" in\n{table}");
        }
    }

    #[test]
    fn durations_have_three_digits() {
        let micros = [420, 17_340, 312_400];
        assert_eq!(micros.map(|micros| millis(Duration::from_micros(micros))), ["0.42 ms", "17.3 ms", "312 ms"]);
    }
}
