//! The simulator's commands.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use outlive_sim::{
    crash_points::{self, Report},
    explore, scenarios,
    setup::Setup,
};
use serde_json::json;

/// Outlive in a seeded world on virtual time.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Lets the active node die after each of its steps.
    CrashPoints {
        /// Only this scenario.
        #[arg(long)]
        scenario: Option<String>,
        /// Only this step.
        #[arg(long)]
        point: Option<u64>,
        /// How the node dies there, 0 to 8.
        #[arg(long, default_value_t = 0)]
        way: u64,
        /// Only every so-and-so-manyth step.
        #[arg(long, default_value_t = 1)]
        stride: u64,
        /// Decides everything that chance decides.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Print what happens (with --point).
        #[arg(long)]
        trace: bool,
        /// Print the report as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Runs random worlds.
    Explore {
        /// How many.
        #[arg(long, default_value_t = 1_000)]
        seeds: u64,
        /// The first seed.
        #[arg(long, default_value_t = 1)]
        from: u64,
        /// Only this seed.
        #[arg(long)]
        seed: Option<u64>,
        /// Print what happens (with --seed).
        #[arg(long)]
        trace: bool,
        /// Print the report as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Runs one scenario without a crash.
    Run {
        /// Which.
        #[arg(long)]
        scenario: String,
        /// Decides everything that chance decides.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Print what happens.
        #[arg(long)]
        trace: bool,
    },
}

fn main() -> anyhow::Result<ExitCode> {
    match Arguments::parse().command {
        Command::CrashPoints { scenario, point, way, stride, seed, trace, json } => {
            let mut chosen = scenarios::all();
            if let Some(name) = scenario {
                chosen.retain(|(n, _)| *n == name);
            }
            anyhow::ensure!(!chosen.is_empty(), "there is no such scenario");
            match point {
                Some(point) => {
                    let (_, scenario) = &chosen[0];
                    let crash = Some(crash_points::crash_point(point, way));
                    Ok(one(Setup { crash, trace, ..scenario.setup(seed) }))
                }
                None => Ok(every_point(&chosen, seed, stride, json)),
            }
        }
        Command::Explore { seed: Some(seed), trace, .. } => {
            Ok(one(Setup { trace, ..explore::setup(seed) }))
        }
        Command::Explore { seeds, from, seed: None, json, .. } => Ok(random(from, seeds, json)),
        Command::Run { scenario, seed, trace } => {
            let scenario = scenarios::named(&scenario).context("there is no such scenario")?;
            Ok(one(Setup { trace, ..scenario.setup(seed) }))
        }
    }
}

fn one(setup: Setup) -> ExitCode {
    let outcome = crash_points::run(setup);
    println!("{outcome:#?}");
    if outcome.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn every_point(
    chosen: &[(&'static str, outlive_sim::scenario::Scenario)],
    seed: u64,
    stride: u64,
    json: bool,
) -> ExitCode {
    // A panic in a world is reported with the others.
    std::panic::set_hook(Box::new(|_| {}));
    let reports = in_parallel(chosen, seed, stride);
    let sum = |of: fn(&Report) -> u64| reports.iter().map(of).sum::<u64>();
    let violations = sum(|r| r.violations);
    if json {
        let report = json!({
            "scenarios": reports.len(),
            "crash_points": sum(|r| r.crash_points),
            "violations": violations,
            "exempt_flows": sum(|r| r.exempt_flows),
            "events": sum(|r| r.events),
            "by_scenario": reports,
        });
        println!("{report:#}");
    } else {
        for report in &reports {
            let Report { scenario, crash_points, violations, .. } = report;
            println!("{scenario}: {crash_points} crash points, {violations} violations");
            report.examples.iter().for_each(|example| println!("    {example}"));
        }
    }
    if violations == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn random(from: u64, seeds: u64, json: bool) -> ExitCode {
    std::panic::set_hook(Box::new(|_| {}));
    let next = std::sync::atomic::AtomicU64::new(from);
    let work = || {
        let mut report = explore::Report::default();
        loop {
            let seed = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            if seed >= from + seeds {
                return report;
            }
            report.add(seed);
        }
    };
    let mut report = explore::Report::default();
    everywhere(work).into_iter().for_each(|part| report.merge(part));
    report.close();
    if json {
        println!("{:#}", json!(report));
    } else {
        println!("{report:#?}");
    }
    let passed = report.violations == 0 && report.situations_missing.is_empty();
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Does the same on every processor.
fn everywhere<T: Send>(work: impl Fn() -> T + Sync) -> Vec<T> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(&work)).collect();
        workers.into_iter().map(|w| w.join().expect("worlds are run guarded")).collect()
    })
}

/// Scenarios do not know of each other: as many at a time as there are processors.
fn in_parallel(
    chosen: &[(&'static str, outlive_sim::scenario::Scenario)],
    seed: u64,
    stride: u64,
) -> Vec<Report> {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let work = || {
        let mut reports = Vec::new();
        loop {
            let i = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let Some((name, scenario)) = chosen.get(i) else { return reports };
            reports.push((i, crash_points::explore(name, scenario, seed, stride)));
        }
    };
    let mut reports: Vec<_> = everywhere(work).into_iter().flatten().collect();
    reports.sort_by_key(|(i, _)| *i);
    reports.into_iter().map(|(_, report)| report).collect()
}
