//! nginx as the server, curl as the client: downloads, uploads, and requests routed by their content.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use outlive_lab::{host::Host, link::LinkKind};

use crate::{
    activity::{Activity, bytes_at, bytes_read_by},
    files::{assert_same_file, write_random},
    program::{Running, command, run},
    world::{Fault, World, listener, megabytes, pool, virtual_address},
};

/// A running nginx.
pub(crate) struct Nginx {
    _running: Running,
    /// Where its files are, and where uploads go: below `up`.
    pub(crate) root: PathBuf,
    /// One line for each request: client address as told by the PROXY protocol, peer, request.
    pub(crate) access_log: PathBuf,
}

impl Nginx {
    /// Starts it on `host`, with these lines (`listen` and what it needs) for its only server. The
    /// answer to `/who` is the host's name.
    pub(crate) fn start(world: &World, host: &Host, lines: &str) -> Self {
        let directory = world.make_directory(&format!("nginx-{}", host.name()));
        let root = directory.join("root");
        std::fs::create_dir_all(root.join("up")).unwrap();
        let (at, name) = (directory.display(), host.name());
        let config = format!(
            "daemon off;
             master_process off;
             pid {at}/pid;
             error_log {at}/error.log;
             events {{ }}
             http {{
                 log_format told '$proxy_protocol_addr $remote_addr $request';
                 access_log {at}/access.log told;
                 client_body_temp_path {at}/body;
                 client_max_body_size 0;
                 # Longer than any pause that a fault makes.
                 client_body_timeout 60s;
                 send_timeout 60s;
                 server {{
                     {lines}
                     root {at}/root;
                     add_header X-Server {name} always;
                     location = /file {{ limit_rate $arg_rate; }}
                     location = /who {{ return 200 '{name}'; }}
                     location = /two/who {{ return 200 '{name}'; }}
                     location /up/ {{ dav_methods PUT; }}
                 }}
             }}"
        );
        let file = directory.join("nginx.conf");
        std::fs::write(&file, config).unwrap();
        let mut command = command("nginx");
        command.arg("-e").arg(directory.join("early.log")).arg("-c").arg(&file);
        let mut running = Running::start(host, &mut command, &directory.join("stderr"));
        for port in lines.split("listen ").skip(1).filter_map(listening_port) {
            running.wait_until_it_listens(host, host.socket(false, port));
        }
        Nginx { _running: running, root, access_log: directory.join("access.log") }
    }
}

/// The port in what follows `listen` in a configuration.
fn listening_port(text: &str) -> Option<u16> {
    let address = text.split([' ', ';']).next()?;
    address.rsplit(':').next()?.parse().ok()
}

/// curl, which gives up on nothing early, and asks nobody's configuration.
pub(crate) fn curl() -> Command {
    let mut command = command("curl");
    command.args(["-q", "--silent", "--show-error", "--fail", "--noproxy", "*"]);
    command.args(["--connect-timeout", "20", "--max-time", "120"]);
    command
}

/// Where curl finds something, and with which further options.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) base: String,
    pub(crate) options: Vec<String>,
}

impl Place {
    /// Plain HTTP at this address.
    pub(crate) fn http(address: SocketAddr) -> Self {
        Place { base: format!("http://{address}"), options: Vec::new() }
    }
}

/// A download of `source`, which the server has as `/file`.
pub(crate) fn download(world: &World, name: &str, place: &Place, source: &Path) -> Activity {
    let len = source.metadata().unwrap().len() as usize;
    let target = world.path(&format!("down-{name}"));
    let mut command = curl();
    let rate = world.rate_for(len);
    // The server goes slowly: curl itself would take the first megabytes as fast as they come.
    command.args(&place.options).arg("-o").arg(&target);
    command.arg(format!("{}/file?rate={rate}", place.base));
    let log = world.path(&format!("down-{name}.log"));
    let running = Running::start(&world.client, &mut command, &log);
    let source = source.to_owned();
    let progress = bytes_at(target.clone());
    Activity::of_program(format!("download {name}"), running, len, progress, move || {
        assert_same_file(&source, &target);
    })
}

/// An upload of `source`, which must be in the directory of one of the servers afterwards.
pub(crate) fn upload(
    world: &World,
    name: &str,
    place: &Place,
    source: &Path,
    servers: &[&Nginx],
) -> Activity {
    let len = source.metadata().unwrap().len() as usize;
    let mut command = curl();
    command.args(&place.options).arg("--limit-rate").arg(world.rate_for(len).to_string());
    command.arg("-T").arg(source).arg(format!("{}/up/{name}", place.base));
    let log = world.path(&format!("up-{name}.log"));
    let running = Running::start(&world.client, &mut command, &log);
    let progress = bytes_read_by(running.child.id(), source.to_owned());
    let source = source.to_owned();
    let targets: Vec<PathBuf> =
        servers.iter().map(|server| server.root.join("up").join(name)).collect();
    Activity::of_program(format!("upload {name}"), running, len, progress, move || {
        let target = targets.iter().find(|target| target.exists()).expect("it has arrived");
        assert_same_file(&source, target);
    })
}

/// What the servers have as `/file`.
pub(crate) fn publish(world: &World, servers: &[&Nginx], len: usize) -> PathBuf {
    let source = world.path("file");
    write_random(&source, len, 1);
    for server in servers {
        std::fs::hard_link(&source, server.root.join("file")).unwrap();
    }
    source
}

const DIRECT: u16 = 80;
const INSPECT: u16 = 81;

fn transfers(fault: Fault) {
    let links = LinkKind::Plain;
    let Some(mut world) = World::new(&["nginx", "curl"], links.clone()) else { return };
    let [one, two] = [0, 1]
        .map(|index| Nginx::start(&world, &world.servers[index], "listen 80; listen [::]:80;"));
    let hosts = [&world.servers[0], &world.servers[1]];
    let text = listener(DIRECT, "direct", "web", "")
        + &listener(INSPECT, "inspect", "web", "")
        + &pool("web", &hosts, 80, "");
    world.start_pair(&links, &text);

    let servers = [&one, &two];
    let source = publish(&world, &servers, megabytes(40, 500));
    let mut activities = Vec::new();
    for (port, ipv6) in [(DIRECT, false), (DIRECT, true), (INSPECT, false), (INSPECT, true)] {
        let name = format!("{port}-{}", if ipv6 { "v6" } else { "v4" });
        let place = Place::http(virtual_address(ipv6, port));
        activities.push(download(&world, &name, &place, &source));
        activities.push(upload(&world, &name, &place, &source, &servers));
    }
    world.outlive(&[fault], activities);
}

#[test]
fn transfers_outlive_a_kill() {
    transfers(Fault::Kill);
}

#[test]
fn transfers_outlive_a_cut() {
    transfers(Fault::Cut);
}

/// Requests go to the server of their host and path, before and after a fault; a connection that has
/// been sent somewhere stays there, and takes further requests after the fault.
#[test]
fn requests_are_routed_by_host_and_path() {
    let links = LinkKind::Plain;
    let Some(mut world) = World::new(&["nginx", "curl"], links.clone()) else { return };
    let [one, two] = [0, 1]
        .map(|index| Nginx::start(&world, &world.servers[index], "listen 80; listen [::]:80;"));
    let routes = "
        [[listener.route]]
        host = \"two.example\"
        path_prefix = \"/who\"
        pool = \"two\"
        [[listener.route]]
        host = \"*.two.example\"
        pool = \"two\"
        [[listener.route]]
        path_prefix = \"/two/\"
        pool = \"two\"";
    let text = listener(INSPECT, "inspect", "one", routes)
        + &pool("one", &[&world.servers[0]], 80, "")
        + &pool("two", &[&world.servers[1]], 80, "");
    world.start_pair(&links, &text);
    let source = publish(&world, &[&one, &two], megabytes(20, 100));

    let asks = |world: &World| {
        for (host, path, answer) in [
            ("one.example", "/who", "one"),
            ("two.example", "/who", "two"),
            ("TWO.example:81", "/who?x", "two"),
            ("www.two.example", "/who", "two"),
            ("xtwo.example", "/who", "one"),
            ("one.example", "/two/who", "two"),
        ] {
            for ipv6 in [false, true] {
                let mut ask = curl();
                ask.arg("-H").arg(format!("Host: {host}"));
                ask.arg(format!("http://{}{path}", virtual_address(ipv6, INSPECT)));
                assert_eq!(run(&world.client, &mut ask), answer, "{host}{path} IPv6 {ipv6}");
            }
        }
    };
    asks(&world);

    // One connection: a download, slow enough for the fault, then a question.
    let keeping = |ipv6: bool, host: &str, answer: &'static str| {
        let len = source.metadata().unwrap().len() as usize;
        let [target, said] = ["kept", "said"].map(|name| world.path(&format!("{name}-{answer}")));
        let base = format!("http://{}", virtual_address(ipv6, INSPECT));
        let mut command = curl();
        let rate = world.rate_for(len);
        command.arg("-H").arg(format!("Host: {host}"));
        command.arg("-w").arg("%{stderr}%{num_connects} ");
        command.arg("-o").arg(&target).arg(format!("{base}/file?rate={rate}"));
        command.arg("-o").arg(&said).arg(format!("{base}/who"));
        let log = world.path(&format!("kept-{answer}.log"));
        let running = Running::start(&world.client, &mut command, &log);
        let progress = bytes_at(target.clone());
        let source = source.clone();
        Activity::of_program(
            format!("kept connection to {answer}"),
            running,
            len,
            progress,
            move || {
                assert_same_file(&source, &target);
                assert_eq!(std::fs::read_to_string(&said).unwrap(), answer);
                assert_eq!(std::fs::read_to_string(&log).unwrap(), "1 0 ", "connections made");
            },
        )
    };
    let activities =
        vec![keeping(false, "one.example", "one"), keeping(true, "www.two.example", "two")];
    world.outlive(&[Fault::Kill], activities);
    asks(&world);
}
