//! The counters of the workers, and the report.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use quorate_core::error::Error;
use serde::Serialize;

use super::options::{Operation, Options, Reads};
use super::schedule::Arrivals;

/// The maximum latency of the histogram.
const LONGEST: Duration = Duration::from_secs(120);
/// The tolerated delay behind the schedule at the end of an open loop, which may come from other programs.
const SLACK: Duration = Duration::from_millis(50);

/// The result of a run; as JSON, a line in the format of the generator for other systems.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The measured system: `quorate` and its version.
    pub peer: String,
    /// The kind of operation.
    pub op: Operation,
    /// Percentage of reads, if operations were mixed.
    pub read_percent: Option<u8>,
    /// The level, if one was given.
    pub level: Option<String>,
    /// The number of operations in flight; in an open loop the maximum.
    pub concurrency: usize,
    /// Keys, or entries, of each operation.
    pub batch: usize,
    /// Bytes of each value.
    pub value_bytes: usize,
    /// Scheduled operations per second; `None` for a closed loop.
    pub rate: Option<f64>,
    /// The spacing of their starts, in an open loop.
    pub arrivals: Option<Arrivals>,
    /// Operations that succeeded, per second.
    pub ops_per_s: f64,
    /// Median latency in microseconds; in an open loop counted from the scheduled start.
    pub p50_us: u64,
    /// 99th percentile.
    pub p99_us: u64,
    /// 99.9th percentile.
    pub p999_us: u64,
    /// Operations that failed, over the whole run.
    pub errors: u64,
    /// Operations that were due and had not started at the end. The latencies include them with their wait.
    pub unstarted: u64,
    /// Whether an open loop kept its rate: at the end it was at most a hundredth of the window, or 50 milliseconds,
    /// behind its schedule.
    pub rate_held: Option<bool>,
    /// The meaning of an acknowledgement.
    pub durability: String,
    /// Reads that found nothing.
    pub misses: u64,
    /// Seconds that were measured.
    pub secs: f64,
    /// Clients.
    pub conns: usize,
    /// CPU seconds of this process per second.
    pub client_cores: f64,
    /// The message of the first error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_error: Option<String>,
}

/// What the workers have counted in a window of time.
///
/// A closed loop counts operations that began and ended in the window. An open loop takes the latency of every
/// operation that was *due* in it, whenever it ends, as slow ones would be missing otherwise; its throughput counts the
/// operations that ended in the window.
pub(super) struct Tally {
    begin: Instant,
    end: Instant,
    open: bool,
    latencies: Histogram<u64>,
    done: u64,
    unstarted: u64,
    /// The delay of the starts behind the schedule at the end.
    behind: Duration,
    errors: u64,
    misses: u64,
    first_error: Option<Error>,
}

impl Tally {
    pub(super) fn new(begin: Instant, end: Instant, open: bool) -> Result<Self, Error> {
        let longest = u64::try_from(LONGEST.as_micros()).unwrap_or(u64::MAX);
        Ok(Tally {
            begin,
            end,
            open,
            latencies: Histogram::new_with_bounds(1, longest, 3)
                .map_err(|error| Error::invalid(error.to_string()))?,
            done: 0,
            unstarted: 0,
            behind: Duration::ZERO,
            errors: 0,
            misses: 0,
            first_error: None,
        })
    }

    /// Counts an operation, by the start of its latency, and whether its reads found values.
    pub(super) fn count(&mut self, start: Instant, ended: Instant, found: Result<bool, Error>) {
        let (started, finished) = (start >= self.begin && start < self.end, ended <= self.end);
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                self.errors += 1;
                self.first_error.get_or_insert(error);
                return;
            }
        };
        if started && (self.open || finished) {
            self.record(ended - start);
            self.misses += u64::from(!found);
        }
        let within = if self.open { ended >= self.begin } else { started };
        self.done += u64::from(within && finished);
    }

    /// Counts an operation that was due and had not started at the end.
    pub(super) fn count_unstarted(&mut self, start: Instant) {
        let waited = self.end - start;
        self.behind = self.behind.max(waited);
        if start >= self.begin {
            self.unstarted += 1;
            self.record(waited);
        }
    }

    fn record(&mut self, latency: Duration) {
        let micros = latency.as_micros().max(1);
        self.latencies
            .saturating_record(u64::try_from(micros).unwrap_or(u64::MAX));
    }

    pub(super) fn report(&self, options: &Options, consensus: bool, secs: f64, cpu: f64) -> Report {
        let cents = |number: f64| (number * 100.0).round() / 100.0;
        Report {
            peer: format!("quorate-{}", env!("CARGO_PKG_VERSION")),
            op: options.operation,
            read_percent: (options.operation == Operation::Mixed).then_some(options.read_percent),
            level: match (consensus, options.reads) {
                (false, _) => options.level.map(|level| level.to_string()),
                (true, Reads::Linearizable) => Some("linearizable".to_owned()),
                (true, Reads::Stale) => Some("stale".to_owned()),
            },
            concurrency: options.concurrency,
            batch: options.batch(),
            value_bytes: options.value_size,
            rate: options.rate,
            arrivals: options.rate.map(|_| options.arrivals),
            ops_per_s: cents(self.done as f64 / secs),
            p50_us: self.latencies.value_at_quantile(0.5),
            p99_us: self.latencies.value_at_quantile(0.99),
            p999_us: self.latencies.value_at_quantile(0.999),
            errors: self.errors,
            unstarted: self.unstarted,
            rate_held: options
                .rate
                .map(|_| self.behind <= SLACK.max((self.end - self.begin) / 100)),
            durability: "journal-fdatasync".to_owned(),
            misses: self.misses,
            secs,
            conns: options.connections,
            client_cores: cents(cpu / secs),
            first_error: self.first_error.as_ref().map(Error::to_string),
        }
    }
}

/// CPU seconds that this process's threads have used; 0 if unknown.
pub(super) fn cpu_seconds() -> f64 {
    let Ok(threads) = std::fs::read_dir("/proc/self/task") else {
        return 0.0;
    };
    let nanoseconds = |thread: std::fs::DirEntry| -> Option<u64> {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse().ok()
    };
    let total: u64 = threads.flatten().filter_map(nanoseconds).sum();
    total as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use quorate_core::ids::KeyspaceId;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn report(tally: &Tally, rate: Option<f64>) -> Report {
        let options = Options {
            rate,
            ..Options::new(KeyspaceId(1), Operation::Read)
        };
        tally.report(&options, false, 1.0, 0.0)
    }

    /// A window of a second, and a moment this many milliseconds after its beginning.
    fn window(open: bool) -> (Tally, impl Fn(i64) -> Instant) {
        let begin = Instant::now() + Duration::from_secs(10);
        let at = move |ms: i64| match u32::try_from(ms) {
            Ok(later) => begin + MS * later,
            Err(_) => begin - MS * ms.unsigned_abs() as u32,
        };
        (Tally::new(at(0), at(1_000), open).unwrap(), at)
    }

    #[test]
    fn a_closed_loop_counts_what_began_and_ended_in_the_window() {
        let (mut tally, at) = window(false);
        for (start, ended) in [(-5, 5), (0, 10), (500, 520), (995, 1_005)] {
            tally.count(at(start), at(ended), Ok(true));
        }
        tally.count(at(600), at(610), Ok(false));
        tally.count(at(700), at(710), Err(Error::invalid("no")));
        let report = report(&tally, None);
        assert_eq!((report.ops_per_s, report.errors, report.misses), (3.0, 1, 1));
        assert_eq!((report.rate, report.rate_held, report.unstarted), (None, None, 0));
        // The histogram has three digits that matter.
        assert!((19_990..=20_020).contains(&report.p99_us), "{report:?}");
    }

    #[test]
    fn an_open_loop_counts_what_was_due_in_the_window_however_late_it_ended() {
        let (mut tally, at) = window(true);
        tally.count(at(-5), at(5), Ok(true));
        tally.count(at(0), at(10), Ok(true));
        tally.count(at(900), at(3_000), Ok(true));
        let report = report(&tally, Some(3.0));
        assert_eq!(report.ops_per_s, 2.0, "two ended within the second");
        assert!(report.p50_us < 10_100 && report.p999_us > 2_090_000, "{report:?}");
        assert_eq!((report.rate, report.rate_held), (Some(3.0), Some(true)));
    }

    #[test]
    fn what_had_to_wait_until_the_end_counts_with_its_wait() {
        let (mut tally, at) = window(true);
        for number in 0..90 {
            tally.count(at(number), at(number + 1), Ok(true));
        }
        for start in [-3, 400, 500] {
            tally.count_unstarted(at(start));
        }
        let report = report(&tally, Some(100.0));
        assert_eq!((report.unstarted, report.rate_held), (2, Some(false)));
        assert!(report.p50_us < 1_100 && report.p999_us > 590_000, "{report:?}");
    }

    #[test]
    fn a_moment_behind_the_schedule_is_not_a_lower_rate() {
        for (waited, held) in [(40, true), (60, false)] {
            let (mut tally, at) = window(true);
            tally.count_unstarted(at(1_000 - waited));
            assert_eq!(report(&tally, Some(100.0)).rate_held, Some(held));
        }
        // Of a window of a minute, a hundredth is more than that.
        let begin = Instant::now();
        let mut tally = Tally::new(begin, begin + 60_000 * MS, true).unwrap();
        tally.count_unstarted(begin + 59_500 * MS);
        assert_eq!(report(&tally, Some(100.0)).rate_held, Some(true));
    }
}
