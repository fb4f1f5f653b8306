//! The lab as a command: runs one scenario and reports.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, ValueEnum};
use outlive_lab::crowd;
use outlive_lab::migration::{LONGEST_RESPONSE, MigrationMode, Victim};
use outlive_lab::privilege;
use outlive_lab::scenario::fault::Fault;
use outlive_lab::scenario::migrate::MigrationSettings;
use outlive_lab::scenario::{Contender, ListenerMode, SCENARIOS, Scenario, Settings, SubjectKind};

/// Runs a scenario of the Outlive lab: hosts, links and faults in network namespaces.
#[derive(Parser)]
#[command(after_help = scenarios())]
struct Arguments {
    /// The scenario to run
    #[arg(value_parser = scenario)]
    scenario: &'static Scenario,
    /// Prints the report as one JSON object
    #[arg(long)]
    json: bool,
    /// Decides everything that is left to chance
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Saves a picture of the throughput over time, in scenarios with faults
    #[arg(long)]
    svg: Option<PathBuf>,
    /// The outlive program [default: the one beside this program]
    #[arg(long)]
    program: Option<PathBuf>,
    /// log-receiver: the log-receiver program [default: the one beside this program]
    #[arg(long)]
    receiver: Option<PathBuf>,
    /// log-receiver: liboutlive_powercut.so [default: the one beside this program]
    #[arg(long)]
    powercut: Option<PathBuf>,
    /// compare: what is compared
    #[arg(long, value_delimiter = ',', default_value = "outlive,haproxy,routing")]
    subjects: Vec<Subject>,
    /// compare: only workloads with this in their name
    #[arg(long, default_value = "")]
    workload: String,
    /// compare: how often each measurement is repeated
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// compare: how long each measurement counts
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// failover: what is done to the active machine
    #[arg(long, value_enum, default_value = "kill")]
    fault: Fault,
    /// failover: how many connections, half of them idle
    #[arg(long, default_value_t = 10_000)]
    connections: u64,
    /// chaos, false-alarms: how long it goes on
    #[arg(long, default_value_t = 5.0)]
    minutes: f64,
    /// endurance, log-receiver: how many changes of the active node
    #[arg(long, default_value_t = 50)]
    cycles: u32,
    /// log-receiver: how many senders
    #[arg(long, default_value_t = 50)]
    senders: usize,
    /// log-receiver: who is killed loses what its disk was not told to keep, too
    #[arg(long)]
    power_cut: bool,
    /// log-receiver: no acknowledgment on the wire may come before its fsync
    #[arg(long)]
    wire: bool,
    /// log-receiver: how fast, against the same on sockets of the kernel that acknowledges on receipt
    #[arg(long, conflicts_with_all = ["power_cut", "wire"])]
    compare: bool,
    /// What the listeners of a pair do ("direct", "terminate") [default: direct]. compare: with "terminate",
    /// listeners that terminate are measured beside those that splice. migrate: what becomes of connections
    /// ("kernel", "replay", and for the plain scenario "splice") [default: kernel]
    #[arg(long, value_enum, conflicts_with = "synthetic")]
    mode: Option<Mode>,
    /// failover: peers without kernel sockets, for a million connections
    #[arg(long, conflicts_with = "subject")]
    synthetic: bool,
    /// failover: what is harmed
    #[arg(long, value_enum, default_value = "outlive")]
    subject: Contender,
    /// failover, migrate: the IP versions of the connections
    #[arg(long, value_enum, default_value = "both")]
    ip: Versions,
    /// migrate: how many connections
    #[arg(long, default_value_t = 10_000)]
    count: u64,
    /// migrate, migrate-bulk, migrate-faults: connections at a time
    #[arg(long, default_value_t = 8)]
    at_once: usize,
    /// migrate-bulk: bytes of each answer, at most 16 MiB
    #[arg(long, default_value_t = 1 << 20)]
    response: usize,
    /// migrate-faults: what dies
    #[arg(long, value_enum, default_value = "balancer")]
    victim: Victim,
    /// migrate-faults: the share of segments that every link loses, and of those that are overtaken
    #[arg(long, default_value_t = 0.0)]
    loss: f64,
}

/// What `--mode` can be: of listeners, and of migrations.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Mode {
    Direct,
    Terminate,
    Kernel,
    Replay,
    Splice,
}

impl Mode {
    fn listeners(self) -> Option<ListenerMode> {
        match self {
            Self::Direct => Some(ListenerMode::Direct),
            Self::Terminate => Some(ListenerMode::Terminate),
            Self::Kernel | Self::Replay | Self::Splice => None,
        }
    }

    fn migrations(self) -> Option<MigrationMode> {
        match self {
            Self::Kernel => Some(MigrationMode::Kernel),
            Self::Replay => Some(MigrationMode::Replay),
            Self::Splice => Some(MigrationMode::Splice),
            Self::Direct | Self::Terminate => None,
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum Versions {
    #[value(name = "4")]
    Four,
    #[value(name = "6")]
    Six,
    Both,
}

impl Versions {
    /// False for IPv4, true for IPv6.
    fn versions(self) -> Vec<bool> {
        match self {
            Self::Four => vec![false],
            Self::Six => vec![true],
            Self::Both => vec![false, true],
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum Subject {
    Outlive,
    Haproxy,
    Routing,
}

fn main() -> ExitCode {
    crowd::serve_if_asked();
    let arguments = Arguments::parse();
    if let Some(mode) = arguments.mode
        && mode.migrations().is_some() != arguments.scenario.name.starts_with("migrate")
    {
        let name = arguments.scenario.name;
        Arguments::command()
            .error(ErrorKind::InvalidValue, format!("{name} has no such --mode"))
            .exit();
    }
    if let Err(error) = privilege::become_able() {
        eprintln!("{error}");
        return ExitCode::from(2);
    }
    let subject = |subject| match subject {
        Subject::Outlive => SubjectKind::Outlive,
        Subject::Haproxy => SubjectKind::Haproxy,
        Subject::Routing => SubjectKind::Routing,
    };
    let mut subjects: Vec<_> = arguments.subjects.into_iter().map(subject).collect();
    if arguments.mode == Some(Mode::Terminate) {
        subjects.push(SubjectKind::Terminating);
    }
    let settings = Settings {
        seed: arguments.seed,
        svg: arguments.svg,
        program: arguments.program.or_else(|| neighbour("outlive")),
        receiver: arguments.receiver.or_else(|| neighbour("log-receiver")),
        subjects,
        workload: arguments.workload,
        rounds: arguments.rounds,
        seconds: arguments.seconds,
        contender: arguments.subject,
        fault: arguments.fault,
        connections: arguments.connections,
        minutes: arguments.minutes,
        cycles: arguments.cycles,
        powercut: arguments.powercut.or_else(|| neighbour("liboutlive_powercut.so")),
        senders: arguments.senders,
        power_cut: arguments.power_cut,
        wire: arguments.wire,
        compare: arguments.compare,
        mode: arguments.mode.and_then(Mode::listeners).unwrap_or(ListenerMode::Direct),
        synthetic: arguments.synthetic,
        ipv6: arguments.ip.versions(),
        migration: MigrationSettings {
            mode: arguments.mode.and_then(Mode::migrations).unwrap_or(MigrationMode::Kernel),
            count: arguments.count,
            at_once: arguments.at_once,
            response: arguments.response.min(LONGEST_RESPONSE),
            victim: arguments.victim,
            loss: arguments.loss,
        },
        ..Settings::default()
    };
    match arguments.scenario.run(&settings) {
        Ok(report) => {
            if arguments.json {
                println!("{}", report.to_json());
            } else {
                print!("{report}");
            }
            if report.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("{}: {error}", arguments.scenario.name);
            ExitCode::from(2)
        }
    }
}

/// A program in the directory of this one.
fn neighbour(name: &str) -> Option<PathBuf> {
    let path = std::env::current_exe().ok()?.with_file_name(name);
    path.is_file().then_some(path)
}

fn scenario(name: &str) -> Result<&'static Scenario, String> {
    Scenario::named(name).ok_or_else(|| format!("there is no such scenario\n\n{}", scenarios()))
}

fn scenarios() -> String {
    let mut list = "Scenarios:".to_owned();
    for scenario in SCENARIOS {
        list += &format!("\n  {:<16} {}", scenario.name, scenario.about);
    }
    list
}
