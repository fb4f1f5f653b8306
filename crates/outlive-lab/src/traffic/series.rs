//! Bytes over time, in buckets of 10 ms, for pictures of throughput.

use std::sync::Mutex;
use std::time::Duration;

/// The width of one bucket.
pub const BUCKET: Duration = Duration::from_millis(10);

/// No series grows beyond this many buckets (one hour); what comes later counts in the last.
const MOST_BUCKETS: usize = 360_000;

/// Bytes that arrived in each bucket since the lab's start.
#[derive(Debug, Default)]
pub struct Series(Mutex<Vec<u64>>);

impl Series {
    /// `bytes` arrived at `now`.
    pub(crate) fn add(&self, now: Duration, bytes: u64) {
        let bucket = ((now.as_nanos() / BUCKET.as_nanos()) as usize).min(MOST_BUCKETS - 1);
        let mut buckets = self.0.lock().expect("no holder panics");
        if buckets.len() <= bucket {
            buckets.resize(bucket + 1, 0);
        }
        buckets[bucket] += bytes;
    }

    /// The buckets so far, the first one at the lab's start.
    pub fn buckets(&self) -> Vec<u64> {
        self.0.lock().expect("no holder panics").clone()
    }

    /// Bytes in all buckets that begin between `from` and `to`.
    pub fn sum(&self, from: Duration, to: Duration) -> u64 {
        let index = |at: Duration| at.as_nanos().div_ceil(BUCKET.as_nanos()) as usize;
        let buckets = self.0.lock().expect("no holder panics");
        let end = index(to).min(buckets.len());
        buckets.get(index(from)..end).map_or(0, |part| part.iter().sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_land_in_the_bucket_of_their_time() {
        let series = Series::default();
        series.add(Duration::from_millis(9), 1);
        series.add(Duration::from_millis(10), 2);
        series.add(Duration::from_millis(35), 4);
        assert_eq!(series.buckets(), [1, 2, 0, 4]);
        assert_eq!(series.sum(Duration::from_millis(10), Duration::from_millis(40)), 6);
        assert_eq!(series.sum(Duration::from_millis(50), Duration::from_millis(60)), 0);
    }
}
