//! How much processor time something takes.
//!
//! A process's own time includes what the kernel did in its name, interrupts that struck meanwhile among it. What the
//! kernel does for a node in nobody's name (translating packets as they come in) is only in the time of the whole machine: there
//! it shows as the difference to a run without that node.

use std::fs;
use std::time::Duration;

/// What user programs count in `/proc/stat`: Linux has never had another value.
const TICK: Duration = Duration::from_millis(10);

/// The time that all threads of process `id` have had so far, as the scheduler counts it; zero if there is no such process.
/// Threads that have ended are not in it: the programs measured here keep theirs.
pub fn of_process(id: u32) -> Duration {
    let threads = fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten();
    let time = |text: String| text.split_whitespace().next()?.parse::<u64>().ok();
    let nanoseconds = threads
        .filter_map(|thread| fs::read_to_string(thread.path().join("schedstat")).ok())
        .filter_map(time);
    Duration::from_nanos(nanoseconds.sum())
}

/// The time that all processors of the machine have been busy with anything.
pub fn of_machine() -> Duration {
    busy_ticks(&fs::read_to_string("/proc/stat").unwrap_or_default())
        .map_or(Duration::ZERO, |ticks| TICK * ticks)
}

/// The first line: user, nice, system, idle, waiting for I/O, interrupts, deferred interrupts, stolen.
fn busy_ticks(stat: &str) -> Option<u32> {
    let mut columns = stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace();
    let mut next = || columns.next()?.parse::<u64>().ok();
    let [user, nice, system] = [next()?, next()?, next()?];
    let [_idle, _waiting] = [next()?, next()?];
    let interrupts = next()? + next()?;
    u32::try_from(user + nice + system + interrupts).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_time_is_not_counted() {
        let text = "cpu  10 1 200 9999 50 3 4 0 0 0\ncpu0 5 0 100 5000 25 1 2 0 0 0\n";
        assert_eq!(busy_ticks(text), Some(218));
        assert_eq!(busy_ticks("intr 5\n"), None);
    }

    #[test]
    fn a_process_that_works_has_had_time() {
        let before = of_process(std::process::id());
        let mut sum = 0_u64;
        while of_process(std::process::id()) <= before {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(of_machine() > Duration::ZERO);
    }
}
