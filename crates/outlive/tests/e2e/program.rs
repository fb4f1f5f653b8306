//! Programs of the distribution, started on a host of the lab.

use std::{
    env,
    ffi::OsStr,
    fs::{self, File},
    net::{SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use outlive_lab::{clock::wait_until, host::Host};
use outlive_net::{netns::Namespace, program::end_with_starter};
use rustix::process::{Pid, Signal, kill_process};

use crate::world::PATIENCE;

/// Where a program is. Besides `PATH`, in the places where Debian puts daemons and PostgreSQL.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut directories: Vec<PathBuf> = env::split_paths(&path).collect();
    directories.extend(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
    // The newest PostgreSQL.
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<PathBuf> = versions.map(|entry| entry.path().join("bin")).collect();
    versions.sort();
    directories.extend(versions.into_iter().rev());
    let is_program = |path: &PathBuf| {
        path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    };
    directories.into_iter().map(|directory| directory.join(name)).find(is_program)
}

/// A command with that program, which [`World::new`](crate::world::World::new) has found to be there.
pub(crate) fn command(name: &str) -> Command {
    let mut command = Command::new(find(name).unwrap_or_else(|| panic!("{name} is not installed")));
    // Its messages are compared, and it must not ask a proxy or an agent that the user has.
    command.env("LC_ALL", "C").env_remove("SSH_AUTH_SOCK");
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// A command with that program, for one that starts others: all of them end with it, however that comes
/// about, because they are in a process namespace of their own. Needs `unshare`.
pub(crate) fn command_with_children(name: &str) -> Command {
    let mut command = command("unshare");
    command.args(["--mount", "--pid", "--fork", "--kill-child", "--"]);
    command.arg(find(name).unwrap_or_else(|| panic!("{name} is not installed")));
    command
}

/// Runs a program to its end, which must be a good one; its standard output.
pub(crate) fn run(host: &Host, command: &mut Command) -> String {
    run_in(host.namespace(), command)
}

/// The same in this namespace.
pub(crate) fn run_in(namespace: &Namespace, command: &mut Command) -> String {
    let output = namespace.enclose(command.stdout(Stdio::piped())).output().unwrap();
    let [out, err] = [&output.stdout, &output.stderr].map(|said| String::from_utf8_lossy(said));
    assert!(output.status.success(), "{command:?}: {}\n{out}\n{err}", output.status);
    out.into_owned()
}

/// A program that runs. It is killed when dropped.
pub(crate) struct Running {
    pub(crate) child: Child,
    name: String,
    log: PathBuf,
}

impl Running {
    /// Starts `command` on `host`. Its complaints go to the file `log`.
    pub(crate) fn start(host: &Host, command: &mut Command, log: &Path) -> Self {
        let file = File::create(log).unwrap();
        command.stderr(file);
        let name = Path::new(command.get_program()).file_name().unwrap_or(OsStr::new("?"));
        let name = name.to_string_lossy().into_owned();
        let child = end_with_starter(host.namespace().enclose(command)).spawn().unwrap();
        Running { child, name, log: log.to_owned() }
    }

    /// Whether it has ended.
    pub(crate) fn is_over(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits until it has ended, which must be with success.
    pub(crate) fn succeed(&mut self, limit: Duration) {
        let status = self.wait(limit);
        assert!(status.success(), "{}: {status}\n{}", self.name, self.said());
    }

    /// Waits until a server among such programs accepts connections.
    pub(crate) fn wait_until_it_listens(&mut self, host: &Host, address: SocketAddr) {
        let answers = || {
            let connected = host.enter(|| TcpStream::connect_timeout(&address, PATIENCE)).unwrap();
            connected.is_ok() || self.is_over()
        };
        let listens = wait_until(PATIENCE, answers) && !self.is_over();
        assert!(listens, "{} does not listen at {address}:\n{}", self.name, self.said());
    }

    /// Lets it stand still.
    pub(crate) fn halt(&mut self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub(crate) fn go_on(&mut self) {
        self.signal(Signal::CONT);
    }

    fn signal(&mut self, signal: Signal) {
        if !self.is_over() {
            let _ = kill_process(Pid::from_child(&self.child), signal);
        }
    }

    /// Waits until its complaints contain that.
    pub(crate) fn wait_until_it_says(&mut self, what: &str) {
        let says = wait_until(PATIENCE, || self.said().contains(what) || self.is_over());
        assert!(says && !self.is_over(), "{} does not say {what:?}:\n{}", self.name, self.said());
    }

    /// Asks it to end (`SIGINT`), and waits for that; then it is killed.
    pub(crate) fn stop(&mut self) {
        self.signal(Signal::INT);
        wait_until(PATIENCE, || self.is_over());
    }

    /// What it has said so far.
    pub(crate) fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn wait(&mut self, limit: Duration) -> ExitStatus {
        let over = wait_until(limit, || self.is_over());
        assert!(over, "{} still runs after {limit:?}:\n{}", self.name, self.said());
        self.child.wait().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
