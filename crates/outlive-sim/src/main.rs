//! The simulator's commands.
#![forbid(unsafe_code)]

#[cfg(not(feature = "deliberate-faults"))]
mod rebuild;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
#[cfg(feature = "deliberate-faults")]
use outlive_sim::mutants;
use outlive_sim::{
    crash_points::{self, Report},
    explore,
    programs::{self, Load},
    scenario::Scenario,
    scenarios,
    setup::{CrashPoint, Setup},
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
        /// Which node dies there (with --point); 2 and more: which target's agent.
        #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..8))]
        node: u64,
        /// How the node dies there, 0 to 11.
        #[arg(long, default_value_t = 0)]
        way: u64,
        /// The other node dies, too, after so many steps of its own.
        #[arg(long)]
        then: Option<u64>,
        /// Only every so-and-so-manyth step.
        #[arg(long, default_value_t = 1)]
        stride: u64,
        /// Decides everything that chance decides.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Print the report as JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        look: Look,
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
        /// Print the report as JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        look: Look,
    },
    /// Runs one scenario without a crash.
    Run {
        /// Which.
        #[arg(long)]
        scenario: String,
        /// Decides everything that chance decides.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        #[command(flatten)]
        look: Look,
    },
    /// Commits deliberate faults, one after the other: each must be noticed. Builds itself with the feature
    /// `deliberate-faults` first, in a directory of its own.
    Mutants {
        /// Only this one.
        #[arg(long)]
        fault: Option<String>,
        /// Print the report as JSON.
        #[arg(long)]
        json: bool,
    },
}

/// How a single world is looked at.
#[derive(Args)]
struct Look {
    /// Print what happens, if only one world is run.
    #[arg(long)]
    trace: bool,
    /// Write every packet to this file, for Wireshark, if only one world is run.
    #[arg(long)]
    pcap: Option<PathBuf>,
    /// Commit this deliberate fault, if only one world is run.
    #[arg(long)]
    fault: Option<String>,
}

fn main() -> anyhow::Result<ExitCode> {
    match Arguments::parse().command {
        Command::CrashPoints { scenario, point, node, way, then, stride, seed, json, look } => {
            let (mut chosen, mut loads) = (scenarios::all(), programs::all());
            if let Some(name) = scenario {
                chosen.retain(|(n, _)| *n == name);
                loads.retain(|(n, _)| *n == name);
            }
            let known = !chosen.is_empty() || !loads.is_empty();
            anyhow::ensure!(known, "there is no such scenario");
            let Some(point) = point else {
                return Ok(every_point(&chosen, &loads, seed, stride, json));
            };
            let crash = crash_points::crash_point(node as usize, point, way);
            let crash = Some(CrashPoint { then, ..crash });
            match (chosen.first(), loads.first()) {
                (Some((_, scenario)), _) => one(Setup { crash, ..scenario.setup(seed) }, &look),
                (None, Some((_, load))) => {
                    one_of_programs(programs::Setup { crash, ..load.setup(seed) }, &look)
                }
                (None, None) => unreachable!("one was found"),
            }
        }
        Command::Explore { seed: Some(seed), look, .. } => one(explore::setup(seed), &look),
        Command::Explore { seeds, from, seed: None, json, .. } => Ok(random(from, seeds, json)),
        Command::Run { scenario, seed, look } => {
            if let Some(load) = programs::named(&scenario) {
                return one_of_programs(load.setup(seed), &look);
            }
            let scenario = scenarios::named(&scenario).context("there is no such scenario")?;
            one(scenario.setup(seed), &look)
        }
        Command::Mutants { fault, json } => every_fault(fault.as_deref(), json),
    }
}

/// Runs one world and shows how it went.
fn one(setup: Setup, look: &Look) -> anyhow::Result<ExitCode> {
    let setup = Setup { trace: look.trace, capture: look.pcap.clone(), ..setup };
    let outcome = match look.fault.as_deref() {
        None => crash_points::run(setup),
        #[cfg(feature = "deliberate-faults")]
        Some(name) => {
            let fault = mutants::named(name).context("there is no such fault")?;
            mutants::run(Some(fault), setup)
        }
        #[cfg(not(feature = "deliberate-faults"))]
        Some(_) => return rebuild::with_faults(),
    };
    println!("{outcome:#?}");
    Ok(verdict(outcome.violations.is_empty()))
}

/// Runs one world of hosts with programs and shows how it went.
fn one_of_programs(setup: programs::Setup, look: &Look) -> anyhow::Result<ExitCode> {
    let setup = programs::Setup { trace: look.trace, ..setup };
    let outcome = match look.fault.as_deref() {
        None => programs::run(setup),
        #[cfg(feature = "deliberate-faults")]
        Some(name) => {
            let fault = mutants::named(name).context("there is no such fault")?;
            mutants::run_programs(Some(fault), setup)
        }
        #[cfg(not(feature = "deliberate-faults"))]
        Some(_) => return rebuild::with_faults(),
    };
    println!("{outcome:#?}");
    Ok(verdict(outcome.violations.is_empty()))
}

fn verdict(good: bool) -> ExitCode {
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[cfg(not(feature = "deliberate-faults"))]
fn every_fault(_: Option<&str>, _: bool) -> anyhow::Result<ExitCode> {
    rebuild::with_faults()
}

#[cfg(feature = "deliberate-faults")]
fn every_fault(only: Option<&str>, json: bool) -> anyhow::Result<ExitCode> {
    use outlive_tcp::fault::Fault;

    let chosen = match only {
        Some(name) => vec![mutants::named(name).context("there is no such fault")?],
        None => Fault::ALL.to_vec(),
    };
    std::panic::set_hook(Box::new(|_| {}));
    let hunted = each(&chosen, |fault| mutants::hunt(*fault));
    let caught = hunted.iter().filter(|m| m.check.is_some()).count();
    if json {
        let report = json!({ "mutants": hunted.len(), "caught": caught, "list": hunted });
        println!("{report:#}");
    } else {
        for mutant in &hunted {
            let check = mutant.check.as_deref().unwrap_or("ESCAPED");
            let command = mutant.command.as_deref().unwrap_or("");
            println!("{}: {check} ({} worlds) [{command}]", mutant.name, mutant.worlds);
        }
        println!("{caught} of {} caught", hunted.len());
    }
    Ok(verdict(caught == hunted.len()))
}

fn every_point(
    chosen: &[(&'static str, Scenario)],
    loads: &[(&'static str, Load)],
    seed: u64,
    stride: u64,
    json: bool,
) -> ExitCode {
    // A panic in a world is reported with the others.
    std::panic::set_hook(Box::new(|_| {}));
    // Scenarios do not know of each other.
    let mut reports =
        each(chosen, |(name, scenario)| crash_points::explore(name, scenario, seed, stride));
    reports.extend(each(loads, |(name, load)| {
        crash_points::explore_programs(name, load, seed, stride)
    }));
    let sum = |of: fn(&Report) -> u64| reports.iter().map(of).sum::<u64>();
    let violations = sum(|r| r.violations);
    if json {
        let report = json!({
            "scenarios": reports.len(),
            "crash_points": sum(|r| r.crash_points),
            "pairs": sum(|r| r.pairs),
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
    verdict(violations == 0)
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
    verdict(report.violations == 0 && report.situations_missing.is_empty())
}

/// Does the same on every processor.
fn everywhere<T: Send>(work: impl Fn() -> T + Sync) -> Vec<T> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(&work)).collect();
        workers.into_iter().map(|w| w.join().expect("worlds are run guarded")).collect()
    })
}

/// Does something with each item, as many at a time as there are processors.
fn each<I: Sync, T: Send>(items: &[I], what: impl Fn(&I) -> T + Sync) -> Vec<T> {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let i = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let Some(item) = items.get(i) else { return done };
            done.push((i, what(item)));
        }
    };
    let mut done: Vec<_> = everywhere(work).into_iter().flatten().collect();
    done.sort_by_key(|(i, _)| *i);
    done.into_iter().map(|(_, result)| result).collect()
}
