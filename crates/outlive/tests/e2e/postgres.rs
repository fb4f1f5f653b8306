//! PostgreSQL `COPY`, in and out, checked by row count and digest.

use std::{
    cell::RefCell,
    fs::{self, File},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    rc::Rc,
    sync::atomic::Ordering::Relaxed,
};

use outlive_lab::{host::Host, link::LinkKind};
use outlive_net::netns::Namespace;

use crate::{
    activity::{Activity, ENOUGH, copy_slowly},
    files::assert_same_file,
    program::{Running, command, find, run, run_in},
    world::{Fault, World, listener, megabytes, pool, virtual_address},
};

pub(crate) const PORT: u16 = 5432;

/// The programs that this needs.
pub(crate) const PROGRAMS: [&str; 4] = ["initdb", "postgres", "psql", "setpriv"];

/// Bytes of a row of the table, as `COPY` writes it, roughly.
pub(crate) const ROW: u64 = 970;

/// A running PostgreSQL with a table `source`, whose `COPY` is also in a file.
pub(crate) struct Database {
    running: Running,
    namespace: Namespace,
    directory: PathBuf,
    /// The table as `COPY` writes it.
    pub(crate) copy: PathBuf,
    user: Option<(u32, u32)>,
}

impl Database {
    /// Makes one with that many rows, and starts it on `host`.
    pub(crate) fn start(world: &World, host: &Host, rows: u64) -> Self {
        let directory = world.make_directory("postgres");
        // It refuses to be run by root.
        let user = rustix::process::getuid().is_root().then(|| user_of_the_package("postgres"));
        if let Some((user, group)) = user {
            std::os::unix::fs::chown(&directory, Some(user), Some(group)).unwrap();
            // The test's directory is for its user only; others must get through to their own.
            let through = std::os::unix::fs::PermissionsExt::from_mode(0o711);
            fs::set_permissions(world.path(""), through).unwrap();
        }
        let data = directory.join("data");
        let mut initdb = command_as(user, "initdb");
        initdb.args(["--auth=trust", "--no-sync", "--username=postgres", "--locale=C"]);
        initdb.args(["--encoding=UTF8", "-D"]).arg(&data);
        run(host, &mut initdb);
        let mut postgres = command_as(user, "postgres");
        postgres.arg("-D").arg(&data).arg("-k").arg(&directory).args(["-h", "*"]);
        let trust = "host all all all trust\nlocal all all trust\n";
        fs::write(data.join("pg_hba.conf"), trust).unwrap();
        // What is copied shall come in the order of the file, even when two copy at once.
        for setting in ["fsync=off", "max_wal_size=4GB", "synchronize_seqscans=off"] {
            postgres.arg("-c").arg(setting);
        }
        let mut running = Running::start(host, &mut postgres, &world.path("postgres.log"));
        // It listens before that, and turns everybody away.
        running.wait_until_it_says("ready to accept connections");
        let copy = directory.join("copy");
        let database =
            Database { running, namespace: host.namespace().clone(), directory, copy, user };
        database.ask(&format!(
            "CREATE TABLE source AS SELECT i, repeat(md5(i::text), 30) AS text
             FROM generate_series(1, {rows}) AS i"
        ));
        database.ask(&format!("COPY source TO '{}'", database.copy.display()));
        database
    }

    /// Asks it something directly, not through the pair.
    pub(crate) fn ask(&self, question: &str) -> String {
        let mut psql = command_as(self.user, "psql");
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-h"]);
        psql.arg(&self.directory).args(["-c", question]);
        run_in(&self.namespace, &mut psql)
    }

    /// Row count, sum and digest of a table.
    pub(crate) fn summary(&self, table: &str) -> String {
        self.ask(&format!(
            "SELECT count(*), sum(i), md5(string_agg(md5(text), '' ORDER BY i)) FROM {table}"
        ))
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // Killed, it would leave shared memory behind.
        self.running.stop();
    }
}

/// A `COPY` of the table from the server at `address` to a file.
pub(crate) fn copy_out(
    world: &World,
    database: &Database,
    name: &str,
    address: SocketAddr,
) -> Activity {
    let mut psql = psql(address, "COPY source TO STDOUT");
    let target = world.path(&format!("copy-{name}"));
    let file = File::create(&target).unwrap();
    let log = world.path(&format!("copy-{name}.log"));
    let mut running = Running::start(&world.client, psql.stdout(Stdio::piped()), &log);
    let output = running.child.stdout.take().expect("it is piped");
    let source = database.copy.clone();
    activity(world, name, running, &source.clone(), (output, file), move || {
        assert_same_file(&source, &target);
    })
}

/// A `COPY` of the file into a table of the server at `address`; the table must be there. What it
/// became is to be compared by [`Database::summary`].
pub(crate) fn copy_in(
    world: &World,
    database: &Database,
    name: &str,
    address: SocketAddr,
    table: &str,
) -> Activity {
    let mut psql = psql(address, &format!("COPY {table} FROM STDIN"));
    let log = world.path(&format!("copy-{name}.log"));
    let mut running = Running::start(&world.client, psql.stdin(Stdio::piped()), &log);
    let input = running.child.stdin.take().expect("it is piped");
    let file = File::open(&database.copy).unwrap();
    activity(world, name, running, &database.copy, (file, input), || ())
}

fn activity(
    world: &World,
    name: &str,
    running: Running,
    source: &Path,
    (from, to): (impl std::io::Read + Send + 'static, impl std::io::Write + Send + 'static),
    check: impl FnOnce() + 'static,
) -> Activity {
    let len = source.metadata().unwrap().len();
    let (count, copying) = copy_slowly(from, to, world.rate_for(len as usize));
    let running = Rc::new(RefCell::new(running));
    Activity {
        name: format!("COPY {name}"),
        progress: Box::new(move || count.load(Relaxed)),
        wanted: len / 16,
        running: running.clone(),
        finish: Box::new(move || {
            running.borrow_mut().succeed(ENOUGH);
            copying.join().expect("the thread does not panic").unwrap();
            check();
        }),
    }
}

fn psql(address: SocketAddr, statement: &str) -> Command {
    let mut psql = command("psql");
    psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", "postgres"]);
    psql.arg("-h").arg(address.ip().to_string()).arg("-p").arg(address.port().to_string());
    psql.args(["-c", statement]);
    psql
}

fn command_as(user: Option<(u32, u32)>, name: &str) -> Command {
    let Some((user, group)) = user else { return command(name) };
    // After the namespace has been entered, which an ordinary user may not.
    let mut command = command("setpriv");
    command.arg(format!("--reuid={user}")).arg(format!("--regid={group}"));
    command.args(["--clear-groups", "--pdeathsig=INT", "--"]).arg(find(name).expect("it is there"));
    command.current_dir("/");
    command
}

/// User and group that the package has made.
fn user_of_the_package(name: &str) -> (u32, u32) {
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let fields = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let mut own = fields.filter(|fields| fields.len() > 3 && fields[0] == name);
    let own = own.next().unwrap_or_else(|| panic!("there is no user {name}"));
    (own[2].parse().unwrap(), own[3].parse().unwrap())
}

fn copies(fault: Fault) {
    let links = LinkKind::Plain;
    let Some(mut world) = World::new(&PROGRAMS, links.clone()) else { return };
    let text = listener(PORT, "direct", "database", "")
        + &listener(5433, "inspect", "database", "")
        + &pool("database", &[&world.servers[0]], PORT, "");
    world.start_pair(&links, &text);
    let rows = megabytes(25, 300) as u64 / ROW;
    let database = Database::start(&world, &world.servers[0], rows);
    database.ask("CREATE TABLE direct (LIKE source); CREATE TABLE inspected (LIKE source)");

    let address = virtual_address;
    let activities = vec![
        copy_out(&world, &database, "out, direct", address(false, PORT)),
        copy_in(&world, &database, "in, direct", address(true, PORT), "direct"),
        copy_out(&world, &database, "out, inspected", address(true, 5433)),
        copy_in(&world, &database, "in, inspected", address(false, 5433), "inspected"),
    ];
    world.outlive(&[fault], activities);
    let expected = database.summary("source");
    assert!(expected.starts_with(&format!("{rows}|")), "{expected}");
    for table in ["direct", "inspected"] {
        assert_eq!(database.summary(table), expected, "{table}");
    }
}

#[test]
fn copies_in_and_out_outlive_a_kill() {
    copies(Fault::Kill);
}

#[test]
fn copies_in_and_out_outlive_a_cut() {
    copies(Fault::Cut);
}
