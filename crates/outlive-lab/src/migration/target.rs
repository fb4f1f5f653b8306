//! A target's machine: a host, `outlive host` on it, and the server whose connections are migrated.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::content::content;
use super::origin::{Answered, Origin};
use super::site::{CONTENT_PORT, MIGRATED_PORT, NODES, SERVER_PORT};
use crate::clock::retry_until;
use crate::error::LabError;
use crate::host::{Host, Program};
use crate::scratch;
use crate::subject::outlive::VIRTUAL;
use crate::topology::{addresses, tunnel_addresses};

/// Where its agent listens for the nodes.
pub(crate) const AGENT_PORT: u16 = 7410;

/// How long a program may take to begin.
const STARTING: Duration = Duration::from_secs(20);

/// The example in Python (`docs/accept.md`), as it is.
const PYTHON_EXAMPLE: &str = include_str!("../../../outlive-accept/examples/hello.py");

/// What a target's server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ServerKind {
    /// The lab's own, which accepts migrated connections by the crate that is for that.
    Origin,
    /// The example in Python, which accepts them, too.
    Python,
    /// nginx, which knows nothing of them.
    Nginx,
}

/// A machine to which connections are migrated.
pub(crate) struct Target {
    /// Programs before the host that has started them.
    agent: Option<Program>,
    server: Option<Server>,
    /// What servers that have ended had answered.
    before: Answered,
    pub(crate) host: Host,
    pub(crate) kind: ServerKind,
    program: PathBuf,
    directory: TempDir,
}

enum Server {
    Origin(Origin),
    /// Held for its end only.
    Other {
        _program: Program,
    },
}

impl Target {
    /// Prepares a target on `host`, whose key is derived from the pair's. `sizes` are the lengths that nginx can be asked for.
    pub(crate) fn new(
        host: Host,
        kind: ServerKind,
        program: &Path,
        pair_key: &Path,
        sizes: &[usize],
    ) -> Result<Self, LabError> {
        let failed = |source| LabError::Program { program: "preparing a target".into(), source };
        let directory = scratch::directory().map_err(failed)?;
        let mut keygen = Command::new(program);
        keygen.arg("keygen").arg("--host").arg(pair_key).args(["--name", host.name(), "--output"]);
        let made = keygen.arg(directory.path().join("key")).output().map_err(failed)?;
        if !made.status.success() {
            return Err(failed(io::Error::other(String::from_utf8_lossy(&made.stderr).trim())));
        }
        let target = Self {
            agent: None,
            server: None,
            before: HashMap::new(),
            host,
            kind,
            program: program.to_owned(),
            directory,
        };
        target.write(sizes).map_err(failed)?;
        Ok(target)
    }

    fn write(&self, sizes: &[usize]) -> io::Result<()> {
        fs::write(self.path("host.toml"), self.agent_text())?;
        if self.kind == ServerKind::Python {
            fs::write(self.path("hello.py"), PYTHON_EXAMPLE)?;
        }
        if self.kind == ServerKind::Nginx {
            fs::create_dir_all(self.path("www"))?;
            for size in sizes {
                fs::write(self.path(&format!("www/{size}")), content(*size))?;
            }
            fs::write(self.path("nginx.conf"), self.nginx_text())?;
        }
        Ok(())
    }

    /// A file of its own.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Starts what does not run, and waits for the server.
    pub(crate) fn start(&mut self) -> Result<(), LabError> {
        if self.server.is_none() {
            let socket = self.path("server.sock");
            self.server = Some(match self.kind {
                ServerKind::Nginx => self.start_nginx()?,
                ServerKind::Python => self.start_python(&socket)?,
                ServerKind::Origin => {
                    Server::Origin(Origin::start(&self.host, SERVER_PORT, &socket)?)
                }
            });
        }
        self.start_agent()
    }

    /// Starts the agent, if it does not run.
    pub(crate) fn start_agent(&mut self) -> Result<(), LabError> {
        if self.agent.as_mut().is_some_and(Program::is_running) {
            return Ok(());
        }
        let failed = |source| LabError::Program { program: "opening a log".into(), source };
        let log = File::options().create(true).append(true).open(self.path("agent.log"));
        let mut command = Command::new(&self.program);
        command.arg("host").arg("--config").arg(self.path("host.toml"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log.map_err(failed)?);
        self.agent = Some(self.host.start(&mut command)?);
        Ok(())
    }

    fn start_nginx(&self) -> Result<Server, LabError> {
        let mut command = Command::new("nginx");
        command.arg("-e").arg(self.path("error.log")).arg("-c").arg(self.path("nginx.conf"));
        self.start_server(&mut command, || true)
    }

    fn start_python(&self, socket: &Path) -> Result<Server, LabError> {
        let mut command = Command::new("python3");
        command.arg(self.path("hello.py")).args(["0.0.0.0", &SERVER_PORT.to_string()]).arg(socket);
        self.start_server(&mut command, || socket.exists())
    }

    fn start_server(
        &self,
        command: &mut Command,
        ready: impl Fn() -> bool,
    ) -> Result<Server, LabError> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let program = self.host.start(command)?;
        let own = self.host.socket(false, SERVER_PORT);
        retry_until(STARTING, "a server to accept connections", || {
            Ok(ready() && self.host.enter(|| TcpStream::connect(own).is_ok())?)
        })?;
        Ok(Server::Other { _program: program })
    }

    /// Ends the agent as a crash would.
    pub(crate) fn kill_agent(&mut self) -> Result<(), LabError> {
        self.agent.take().map_or(Ok(()), |mut agent| agent.kill())
    }

    /// Lets the agent do nothing, or go on.
    pub(crate) fn freeze(&self, frozen: bool) -> Result<(), LabError> {
        let signal = if frozen { Signal::STOP } else { Signal::CONT };
        self.agent.as_ref().map_or(Ok(()), |agent| agent.signal(signal))
    }

    /// As if the power failed: nothing is said to anybody.
    pub(crate) fn power_off(&mut self) -> Result<(), LabError> {
        self.host.unplug();
        self.kill_agent()?;
        self.remember();
        self.server = None;
        self.host.power_off()
    }

    fn remember(&mut self) {
        if let Some(Server::Origin(origin)) = &self.server {
            add(&mut self.before, origin.answered());
        }
    }

    /// Plugs the machine in again, with nothing running.
    pub(crate) fn power_on(&mut self) -> Result<(), LabError> {
        self.host.power_on()
    }

    /// Its agent's process.
    pub(crate) fn agent_id(&self) -> Option<u32> {
        self.agent.as_ref().map(Program::id)
    }

    /// What the agent says of itself; null if it cannot be asked.
    pub(crate) fn status(&self) -> Value {
        let mut command = Command::new(&self.program);
        command.args(["host", "--status", "--config"]).arg(self.path("host.toml"));
        let output = command.stdin(Stdio::null()).output();
        output.map_or(Value::Null, |it| serde_json::from_slice(&it.stdout).unwrap_or_default())
    }

    /// What the agent has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("agent.log")).unwrap_or_default()
    }

    /// Which requests its servers have answered, how often, and for whom.
    pub(crate) fn answered(&self) -> Answered {
        let mut all = self.before.clone();
        match &self.server {
            Some(Server::Origin(origin)) => add(&mut all, origin.answered()),
            _ if self.kind == ServerKind::Nginx => {
                let log = fs::read_to_string(self.path("access.log")).unwrap_or_default();
                for (id, client) in log.lines().filter_map(answered_by_nginx) {
                    all.entry(id).or_insert((0, client)).0 += 1;
                }
            }
            _ => {}
        }
        all
    }

    fn agent_text(&self) -> String {
        let own = addresses(self.host.number())[0];
        let services = [MIGRATED_PORT, CONTENT_PORT].into_iter().flat_map(|port| {
            addresses(VIRTUAL).map(|it| format!("\"{}\"", SocketAddr::new(it, port)))
        });
        let services: Vec<String> = services.collect();
        let quoted = |list: Vec<IpAddr>| {
            list.iter().map(|address| format!("\"{address}\"")).collect::<Vec<_>>().join(", ")
        };
        let nodes = NODES.map(|number| addresses(number)[0]).to_vec();
        let tunnel = tunnel_addresses(self.host.number()).to_vec();
        let node_tunnels = NODES.iter().flat_map(|number| tunnel_addresses(*number));
        let directory = self.directory.path().display();
        let mut text = format!(
            r#"[host]
listen = "{own}:{AGENT_PORT}"
key_file = "key"
nodes = [{}]
set_sysctls = true
status_socket = "{directory}/status.sock"

[timeouts]
linger = "2s"

[tunnel]
addresses = [{}]
nodes = [{}]

[[service]]
address = [{}]
"#,
            quoted(nodes),
            quoted(tunnel),
            quoted(node_tunnels.collect()),
            services.join(", "),
        );
        // Writing to a string cannot fail.
        let _ = match self.kind {
            ServerKind::Nginx => writeln!(text, "mode = \"replay\"\nport = {SERVER_PORT}"),
            _ => writeln!(text, "mode = \"kernel\"\nsocket = \"{directory}/server.sock\""),
        };
        text
    }

    fn nginx_text(&self) -> String {
        let directory = self.directory.path().display();
        format!(
            "daemon off; master_process off; user root; pid {directory}/nginx.pid; error_log {directory}/error.log;\n\
             events {{ worker_connections 15000; }}\n\
             http {{ log_format asked '$remote_addr $args \"$request\" $status'; access_log {directory}/access.log asked;\n\
             sendfile on; client_body_temp_path {directory}/t1; proxy_temp_path {directory}/t2;\n\
             fastcgi_temp_path {directory}/t3; uwsgi_temp_path {directory}/t4; scgi_temp_path {directory}/t5;\n\
             server {{ listen {SERVER_PORT} backlog=4096; listen [::]:{SERVER_PORT} backlog=4096;\n\
             root {directory}/www; }} }}\n"
        )
    }
}

/// What the line says: the request's number, and the client.
fn answered_by_nginx(line: &str) -> Option<(u64, IpAddr)> {
    let mut words = line.split(' ');
    let client: IpAddr = words.next()?.parse().ok()?;
    Some((words.next()?.parse().ok()?, client.to_canonical()))
}

fn add(all: &mut Answered, more: Answered) {
    for (id, (times, client)) in more {
        all.entry(id).or_insert((0, client)).0 += times;
    }
}
