//! rsync of a directory tree, from and to its daemon and over ssh, compared afterwards.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use outlive_lab::{host::Host, link::LinkKind};

use crate::{
    activity::{Activity, bytes_at},
    files::{assert_same_tree, write_random_tree},
    program::{Running, command, command_with_children, find},
    ssh::{self, Sshd},
    world::{Fault, World, listener, megabytes, pool, virtual_address},
};

pub(crate) const PORT: u16 = 873;

/// A running rsync daemon.
pub(crate) struct Daemon {
    _running: Running,
    /// The directory of its module, `files`.
    pub(crate) root: PathBuf,
}

impl Daemon {
    /// Starts it on `host`.
    pub(crate) fn start(world: &World, host: &Host) -> Self {
        let root = world.make_directory("rsyncd/files");
        let directory = world.path("rsyncd");
        let config = format!(
            "use chroot = no
             uid = {user}
             gid = {group}
             log file = {at}/log
             pid file = {at}/pid
             lock file = {at}/lock
             [files]
             path = {at}/files
             read only = no
             munge symlinks = no
             ",
            user = rustix::process::getuid().as_raw(),
            group = rustix::process::getgid().as_raw(),
            at = directory.display(),
        );
        let file = directory.join("rsyncd.conf");
        fs::write(&file, config).unwrap();
        let mut command = command_with_children("rsync");
        command.args(["--daemon", "--no-detach"]).arg(format!("--port={PORT}"));
        command.arg(format!("--config={}", file.display()));
        let mut running = Running::start(host, &mut command, &directory.join("stderr"));
        running.wait_until_it_listens(host, host.socket(false, PORT));
        Daemon { _running: running, root }
    }
}

/// A tree of about `len` bytes in `directory`.
pub(crate) fn tree(directory: PathBuf, len: usize) -> PathBuf {
    fs::create_dir_all(&directory).unwrap();
    write_random_tree(&directory, len, 7);
    directory
}

/// Copies the tree `from`, which rsync finds as `source`, to the directory `to`, which it finds as
/// `destination`.
pub(crate) fn copying(
    world: &World,
    name: &str,
    (source, from): (String, &Path),
    (destination, to): (String, PathBuf),
    options: impl FnOnce(&mut Command),
) -> Activity {
    let len = bytes_at(from.to_owned())() as usize;
    let mut command = command("rsync");
    command.args(["--archive", "--whole-file", "--timeout=60"]);
    command.arg(format!("--bwlimit={}", world.rate_for(len) / 1024));
    options(&mut command);
    command.arg(source).arg(destination);
    let log = world.path(&format!("rsync-{name}.log"));
    let running = Running::start(&world.client, &mut command, &log);
    let from = from.to_owned();
    let progress = bytes_at(to.clone());
    Activity::of_program(format!("rsync {name}"), running, len, progress, move || {
        assert!(assert_same_tree(&from, &to) > 20);
    })
}

/// The module of the daemon at `address`, with a path in it.
pub(crate) fn module(address: SocketAddr, path: &str) -> String {
    format!("rsync://{address}/files/{path}")
}

fn copies(fault: Fault) {
    let links = LinkKind::Plain;
    let programs = [&["rsync"], &ssh::PROGRAMS[..]].concat();
    let Some(mut world) = World::new(&programs, links.clone()) else { return };
    let daemon = Daemon::start(&world, &world.servers[0]);
    let sshd = Sshd::start(&world, &world.servers[1]);
    let text = listener(PORT, "direct", "rsync", "")
        + &listener(22, "inspect", "shell", "")
        + &pool("rsync", &[&world.servers[0]], PORT, "")
        + &pool("shell", &[&world.servers[1]], 22, "");
    world.start_pair(&links, &text);

    let len = megabytes(20, 200);
    let here = tree(world.path("tree"), len);
    let there = tree(daemon.root.join("tree"), len);
    let local = format!("{}/", here.display());
    let (v4, v6) = (virtual_address(false, PORT), virtual_address(true, PORT));
    let pulled = world.path("pulled");
    let by_ssh = world.path("by-ssh");
    let activities = vec![
        copying(
            &world,
            "pull",
            (module(v4, "tree/"), &there),
            (pulled.display().to_string(), pulled.clone()),
            |_| (),
        ),
        copying(
            &world,
            "push",
            (local.clone(), &here),
            (module(v6, "pushed"), daemon.root.join("pushed")),
            |_| (),
        ),
        copying(
            &world,
            "over ssh",
            (local, &here),
            (format!("server:{}", by_ssh.display()), by_ssh.clone()),
            |command| {
                // The shell that rsync starts is ssh without its last word, the address: rsync puts
                // a name there, which stands for the address.
                let ssh = sshd.ssh(virtual_address(true, 22));
                let mut words: Vec<_> =
                    ssh.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
                let address = words.pop().expect("the address is the last");
                words.insert(0, format!("-oHostName={address}"));
                words.insert(0, find("ssh").expect("it was looked for").display().to_string());
                command.arg("-e").arg(words.join(" "));
            },
        ),
    ];
    world.outlive(&[fault], activities);
}

#[test]
fn a_tree_arrives_whole_across_a_kill() {
    copies(Fault::Kill);
}

#[test]
fn a_tree_arrives_whole_across_a_cut() {
    copies(Fault::Cut);
}
