//! Network namespaces as guards: a machine's whole network stack, made and thrown away by one
//! process.
//!
//! A namespace has no name and no process of its own: it lives as long as a descriptor, a
//! device, a thread or a program in it does. Sockets, TUN devices and
//! [`Netlink`] clients belong to the namespace in which they were
//! opened, and may be used from any thread afterwards; so code enters a namespace to open them,
//! not to use them. Likewise `/proc/sys/net` shows the namespace of the thread that reads or
//! writes there: wrap it in [`Namespace::run`].

use std::{
    ffi::CString,
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::{ffi::OsStrExt, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    thread,
};

use crate::{
    Errno,
    netlink::{Netlink, NetlinkError},
    sys,
};

/// A network namespace, kept alive by a descriptor. Clones refer to the same one.
#[derive(Clone, Debug)]
pub struct Namespace {
    fd: Arc<OwnedFd>,
}

impl Namespace {
    /// Makes a new, empty network namespace, with its loopback interface up.
    ///
    /// Needs `CAP_SYS_ADMIN` in the current user namespace.
    pub fn create() -> Result<Namespace, NamespaceError> {
        // `unshare` moves the calling thread, so a fresh one does it and ends afterwards.
        let created = on_fresh_thread(|| {
            sys::unshare(libc::CLONE_NEWNET)?;
            Namespace::of_this_thread()
        });
        let namespace = created.map_err(NamespaceError::at(Step::Create))?;
        let loopback = namespace.netlink().and_then(|netlink| netlink.set_up("lo", true));
        loopback.map_err(|error| NamespaceError {
            step: Step::Loopback,
            errno: error.errno().unwrap_or(Errno(libc::EIO)),
        })?;
        Ok(namespace)
    }

    /// The namespace that the calling thread is in.
    pub fn current() -> Result<Namespace, NamespaceError> {
        Namespace::of_this_thread().map_err(NamespaceError::at(Step::Open))
    }

    /// The namespace that the process `pid` is in.
    pub fn of_process(pid: u32) -> Result<Namespace, NamespaceError> {
        Namespace::open(Path::new(&format!("/proc/{pid}/ns/net")))
    }

    /// The namespace that the file refers to: one under `/proc/PID/ns` or `/run/netns`.
    pub fn open(path: &Path) -> Result<Namespace, NamespaceError> {
        Namespace::from_path(path).map_err(NamespaceError::at(Step::Open))
    }

    /// Runs `action` inside, on a thread made for it, and returns what it returned.
    ///
    /// A panic in `action` goes on in the caller.
    pub fn run<T: Send>(&self, action: impl FnOnce() -> T + Send) -> Result<T, NamespaceError> {
        on_fresh_thread(|| {
            self.enter()?;
            Ok(action())
        })
        .map_err(NamespaceError::at(Step::Enter))
    }

    /// Starts a thread inside that outlives this call.
    ///
    /// `name`: of the thread, as debuggers show it. The handle's inner result is an error if
    /// the namespace could not be entered; `action` did not run then.
    pub fn spawn<T: Send + 'static>(
        &self,
        name: &str,
        action: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<thread::JoinHandle<io::Result<T>>> {
        let namespace = self.clone();
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            namespace.enter()?;
            Ok(action())
        })
    }

    /// Makes `command` start inside this namespace, whichever thread spawns it.
    pub fn enclose<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let fd = self.fd.clone();
        // SAFETY: the closure runs in the forked child before exec. It only makes a system
        // call: no allocation, no lock. The error it may return holds an errno, no memory.
        unsafe {
            command.pre_exec(move || sys::enter_namespace(fd.as_raw_fd(), libc::CLONE_NEWNET))
        }
    }

    /// A netlink client of this namespace, usable from any thread.
    pub fn netlink(&self) -> Result<Netlink, NetlinkError> {
        match self.run(Netlink::open) {
            Ok(opened) => opened,
            Err(error) => Err(NetlinkError::opening(error.errno)),
        }
    }

    /// Shows the namespace under `/run/netns/NAME`, so that `ip netns exec NAME` finds it, until
    /// the guard is dropped. For debugging: nothing else needs a name.
    pub fn publish(&self, name: &str) -> Result<Published, NamespaceError> {
        let failed = NamespaceError::at(Step::Publish);
        if name.is_empty() || name.contains('/') || name.starts_with('.') {
            return Err(failed(io::Error::from_raw_os_error(libc::EINVAL)));
        }
        let directory = Path::new("/run/netns");
        fs::create_dir_all(directory).map_err(&failed)?;
        let path = directory.join(name);
        File::create_new(&path).map_err(&failed)?;
        let source = c_path(Path::new(&format!("/proc/self/fd/{}", self.fd.as_raw_fd())));
        let mounted = sys::mount(&source, &c_path(&path), None, libc::MS_BIND);
        let published = Published { path, mounted: mounted.is_ok() };
        mounted.map(|()| published).map_err(failed)
    }

    /// Moves the calling thread inside, for good.
    fn enter(&self) -> io::Result<()> {
        sys::enter_namespace(self.fd.as_raw_fd(), libc::CLONE_NEWNET)
    }

    fn of_this_thread() -> io::Result<Namespace> {
        Namespace::from_path(Path::new("/proc/thread-self/ns/net"))
    }

    fn from_path(path: &Path) -> io::Result<Namespace> {
        Ok(Namespace { fd: Arc::new(File::open(path)?.into()) })
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A namespace's name under `/run/netns`; dropping it removes the name, not the namespace.
#[derive(Debug)]
pub struct Published {
    path: PathBuf,
    mounted: bool,
}

impl Published {
    /// Where the namespace is shown.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        // Best effort: a name that stays is a nuisance, no more.
        if self.mounted {
            let _ = sys::unmount(&c_path(&self.path));
        }
        let _ = fs::remove_file(&self.path);
    }
}

/// Why a namespace could not be made, opened, entered or shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{step}: {errno}")]
pub struct NamespaceError {
    /// What was being done.
    pub step: Step,
    /// What the kernel said.
    pub errno: Errno,
}

impl NamespaceError {
    fn at(step: Step) -> impl Fn(io::Error) -> NamespaceError {
        move |error| NamespaceError { step, errno: Errno::of(&error) }
    }
}

/// What was being done when a [`NamespaceError`] happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Making it: `EPERM` without `CAP_SYS_ADMIN`.
    Create,
    /// Setting its loopback interface up.
    Loopback,
    /// Opening an existing one.
    Open,
    /// Entering it.
    Enter,
    /// Giving it a name.
    Publish,
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Step::Create => "creating a network namespace",
            Step::Loopback => "setting up the loopback interface of a new network namespace",
            Step::Open => "opening a network namespace",
            Step::Enter => "entering a network namespace",
            Step::Publish => "naming a network namespace",
        })
    }
}

/// Runs `action` on a thread of its own and waits for it; a panic goes on in the caller.
fn on_fresh_thread<T: Send>(action: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("namespace".to_owned());
        match thread.spawn_scoped(scope, action)?.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// A path as the kernel takes it. Paths made here never contain NUL; one that does is cut to
/// the empty string, which the kernel refuses.
fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap_or_default()
}
