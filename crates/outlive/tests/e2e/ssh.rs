//! An OpenSSH session in which somebody keeps typing: every line gets its answer, through the same
//! session, before, during and after a fault.

use std::{
    cell::RefCell,
    fs,
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    path::PathBuf,
    process::{Command, Stdio},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use outlive_lab::{host::Host, link::LinkKind};

use crate::{
    activity::{Activity, ENOUGH},
    program::{Running, command, command_with_children, run},
    world::{Fault, World, listener, pool, virtual_address},
};

/// The pause before each line.
const PAUSE: Duration = Duration::from_millis(60);

/// The programs that a session needs.
pub(crate) const PROGRAMS: [&str; 4] = ["sshd", "ssh", "ssh-keygen", "unshare"];

/// A running sshd that lets the user of the test in, with a key of its own.
pub(crate) struct Sshd {
    _running: Running,
    client_key: PathBuf,
}

impl Sshd {
    /// Starts it on `host`, port 22.
    pub(crate) fn start(world: &World, host: &Host) -> Self {
        let directory = world.make_directory("sshd");
        let key = |name: &str| {
            let path = directory.join(name);
            let mut keygen = command("ssh-keygen");
            keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&path);
            run(host, &mut keygen);
            path
        };
        let (host_key, client_key) = (key("host"), key("client"));
        let config = format!(
            "Port 22
             HostKey {}
             AuthorizedKeysFile {}
             PermitRootLogin yes
             PasswordAuthentication no
             KbdInteractiveAuthentication no
             UsePAM no
             UseDNS no
             StrictModes no
             PidFile none
             PrintMotd no
             PrintLastLog no
             MaxStartups 100
             LogLevel INFO
             ",
            host_key.display(),
            client_key.with_extension("pub").display()
        );
        let file = directory.join("sshd_config");
        fs::write(&file, config).unwrap();
        // sshd insists on an empty directory below /run, which nothing should be left of: it gets a
        // /run of its own.
        let mut command = command_with_children("sh");
        let script = "mount -t tmpfs tmpfs /run && mkdir -m 755 /run/sshd && exec \"$@\"";
        command.args(["-c", script, "sh"]);
        command.arg(crate::program::find("sshd").expect("it was looked for"));
        command.args(["-D", "-e", "-f"]).arg(&file);
        let mut running = Running::start(host, &mut command, &directory.join("log"));
        running.wait_until_it_listens(host, host.socket(false, 22));
        Sshd { _running: running, client_key }
    }

    /// The client's command, to which the words for the server are to be added.
    pub(crate) fn ssh(&self, address: SocketAddr) -> Command {
        let mut command = command("ssh");
        command.args(["-F", "none", "-T", "-o", "StrictHostKeyChecking=no"]);
        command.args(["-o", "UserKnownHostsFile=/dev/null", "-o", "IdentitiesOnly=yes"]);
        command.args(["-o", "BatchMode=yes", "-o", "LogLevel=ERROR", "-i"]).arg(&self.client_key);
        command.arg("-p").arg(address.port().to_string()).arg(address.ip().to_string());
        command
    }
}

/// A session with the server at `address`.
pub(crate) fn typing(world: &World, sshd: &Sshd, name: &str, address: SocketAddr) -> Activity {
    let mut ssh = sshd.ssh(address);
    ssh.arg("sh").stdin(Stdio::piped()).stdout(Stdio::piped());
    let log = world.path(&format!("ssh-{name}.log"));
    let mut running = Running::start(&world.client, &mut ssh, &log);
    let mut keyboard = running.child.stdin.take().expect("it is piped");
    let mut screen = BufReader::new(running.child.stdout.take().expect("it is piped")).lines();
    let lines = world.seconds * 15;
    let answered = Arc::new(AtomicU64::new(0));
    let count = answered.clone();
    let typist = thread::spawn(move || -> Result<(), String> {
        for line in 0..lines {
            thread::sleep(PAUSE);
            let typed = writeln!(keyboard, "echo {line}: $(({line} * {line}))");
            typed.map_err(|error| format!("line {line}: {error}"))?;
            let said = screen.next().ok_or(format!("no answer to line {line}"))?;
            let said = said.map_err(|error| format!("answer {line}: {error}"))?;
            let expected = format!("{line}: {}", line * line);
            (said == expected).then_some(()).ok_or(format!("{said} instead of {expected}"))?;
            count.fetch_add(1, Relaxed);
        }
        Ok(())
    });
    let running = Rc::new(RefCell::new(running));
    let name = format!("ssh {name}");
    Activity {
        name: name.clone(),
        progress: Box::new(move || answered.load(Relaxed)),
        wanted: lines / 15,
        running: running.clone(),
        finish: Box::new(move || {
            // With the last answer the keyboard is let go, and with that the session ends.
            running.borrow_mut().succeed(ENOUGH);
            let typed = typist.join().expect("the typist does not panic");
            typed.unwrap_or_else(|error| panic!("{name}: {error}\n{}", running.borrow().said()));
        }),
    }
}

fn sessions(fault: Fault) {
    let links = LinkKind::Plain;
    let Some(mut world) = World::new(&PROGRAMS, links.clone()) else { return };
    let sshd = Sshd::start(&world, &world.servers[0]);
    let text = listener(22, "direct", "shell", "")
        + &listener(2222, "inspect", "shell", "")
        + &pool("shell", &[&world.servers[0]], 22, "");
    world.start_pair(&links, &text);
    let mut activities = Vec::new();
    for (name, ipv6, port) in [
        ("v4", false, 22),
        ("v6", true, 22),
        ("inspected-v4", false, 2222),
        ("inspected-v6", true, 2222),
    ] {
        activities.push(typing(&world, &sshd, name, virtual_address(ipv6, port)));
    }
    world.outlive(&[fault], activities);
}

#[test]
fn a_session_with_somebody_typing_outlives_a_kill() {
    sessions(Fault::Kill);
}

#[test]
fn a_session_with_somebody_typing_outlives_a_cut() {
    sessions(Fault::Cut);
}
