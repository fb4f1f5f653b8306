//! What programs are doing while harm is done: under way before it, well ended after it.

use std::{
    cell::RefCell,
    fs,
    io::{self, Read, Write},
    path::PathBuf,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use outlive_lab::clock::wait_until;

use crate::program::Running;

/// How long an activity may take. Generous: a connection that hangs is lost, one that is slow is not.
pub(crate) const ENOUGH: Duration = Duration::from_secs(120);

/// How far ahead of the others an activity may be, in units of what is wanted.
const AHEAD: u64 = 4;

/// Something that goes on for a while.
pub(crate) struct Activity {
    /// For messages.
    pub(crate) name: String,
    /// How far it is: bytes or lines.
    pub(crate) progress: Box<dyn Fn() -> u64>,
    /// How far it must be before a fault, and further before the next one.
    pub(crate) wanted: u64,
    /// The program that does it. When that is over it is too late for a fault.
    pub(crate) running: Rc<RefCell<Running>>,
    /// Waits for its end, and panics if that was not a good one.
    pub(crate) finish: Box<dyn FnOnce()>,
}

impl Activity {
    /// What a program does that moves `len` bytes and then ends: `check` looks at the outcome. The
    /// fault comes after a sixteenth of the way.
    pub(crate) fn of_program(
        name: String,
        running: Running,
        len: usize,
        progress: impl Fn() -> u64 + 'static,
        check: impl FnOnce() + 'static,
    ) -> Self {
        let running = Rc::new(RefCell::new(running));
        Activity {
            name,
            progress: Box::new(progress),
            wanted: len as u64 / 16,
            running: running.clone(),
            finish: Box::new(move || {
                running.borrow_mut().succeed(ENOUGH);
                check();
            }),
        }
    }

    fn is_under_way(&self, times: u64) -> bool {
        (self.progress)() >= self.wanted * times
    }

    pub(crate) fn is_over(&self) -> bool {
        self.running.borrow_mut().is_over()
    }

    /// Halts it when it is so far ahead that it might end before the others have begun: on a busy machine one goes many
    /// times as fast as another.
    fn wait_for_others(&self, times: u64) {
        if (self.progress)() >= self.wanted * (times + AHEAD) {
            self.running.borrow_mut().halt();
        }
    }

    /// Waits for its good end.
    pub(crate) fn finish(self) {
        (self.finish)();
    }
}

/// Waits until each has gone `times` its wanted way. None may be over before.
pub(crate) fn wait_until_under_way(activities: &mut [Activity], times: usize) {
    let mut early = None;
    let under_way = wait_until(ENOUGH, || {
        early = activities.iter().position(Activity::is_over);
        activities.iter().for_each(|activity| activity.wait_for_others(times as u64));
        early.is_some() || activities.iter().all(|activity| activity.is_under_way(times as u64))
    });
    for activity in activities.iter() {
        activity.running.borrow_mut().go_on();
    }
    if under_way && early.is_none() {
        return;
    }
    for activity in activities.iter() {
        let (name, wanted) = (&activity.name, activity.wanted * times as u64);
        eprintln!("{name}: {} of {wanted} wanted before the fault", (activity.progress)());
    }
    if let Some(early) = early {
        // It may say itself what went wrong.
        let finish = std::mem::replace(&mut activities[early].finish, Box::new(|| ()));
        finish();
        panic!("{} was over before the fault", activities[early].name);
    }
    panic!("not every activity came so far");
}

/// Bytes in a file, or in all files below a directory.
pub(crate) fn bytes_at(path: PathBuf) -> impl Fn() -> u64 {
    fn sum(path: &std::path::Path) -> u64 {
        let Ok(data) = fs::symlink_metadata(path) else { return 0 };
        if !data.is_dir() {
            return data.len();
        }
        fs::read_dir(path).into_iter().flatten().flatten().map(|entry| sum(&entry.path())).sum()
    }
    move || sum(&path)
}

/// How far the process `pid` has read the file `path`.
pub(crate) fn bytes_read_by(pid: u32, path: PathBuf) -> impl Fn() -> u64 {
    let position = move || -> Option<u64> {
        let open = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten();
        let found = open.into_iter().find(|fd| fs::read_link(fd.path()).is_ok_and(|to| to == path));
        let number = found?.file_name().into_string().ok()?;
        let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).ok()?;
        info.lines().find_map(|line| line.strip_prefix("pos:"))?.trim().parse().ok()
    };
    move || position().unwrap_or(0)
}

/// Copies everything at `rate` bytes per second on a thread of its own, counting as it goes.
pub(crate) fn copy_slowly(
    mut from: impl Read + Send + 'static,
    mut to: impl Write + Send + 'static,
    rate: u64,
) -> (Arc<AtomicU64>, thread::JoinHandle<io::Result<()>>) {
    let count = Arc::new(AtomicU64::new(0));
    let counted = count.clone();
    let copying = thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        let start = Instant::now();
        loop {
            let len = from.read(&mut buffer)?;
            if len == 0 {
                return to.flush();
            }
            to.write_all(&buffer[..len])?;
            let total = counted.fetch_add(len as u64, Relaxed) + len as u64;
            let due = Duration::from_secs_f64(total as f64 / rate as f64);
            thread::sleep(due.saturating_sub(start.elapsed()));
        }
    });
    (count, copying)
}
