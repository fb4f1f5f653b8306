//! `outlive demo`: what a newcomer runs first. What it shows is the lab's; here are the command
//! line, the privileges, and where the verdict goes.

use std::{
    env, fs,
    io::{self, IsTerminal},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use bytesize::ByteSize;
use clap::Args;
use outlive_lab::{
    demo::{Demo, Display, Verdict},
    error::LabError,
};
use outlive_net::{
    privilege::{self, Missing},
    tun, user_namespace,
};

/// Text is drawn for this many columns, or fewer if the terminal has fewer.
const WIDTH: u16 = 100;

#[derive(Args)]
pub(crate) struct Options {
    /// Bytes of the download and of the upload, each: 1GiB, 500MB.
    #[arg(long, default_value = "1GiB")]
    size: ByteSize,
    /// Seconds that each transfer is made to last, if nothing holds it up; at least 5.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(5..=3600))]
    seconds: u64,
    /// Idle connections.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(2..=5000))]
    idle: u64,
    /// Decides what the connections carry.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The verdict as one JSON object on standard output; the display goes to standard error.
    #[arg(long)]
    json: bool,
    /// Saves the picture of the throughput over time.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Plain lines instead of the live display, also on a terminal.
    #[arg(long)]
    plain: bool,
}

pub(crate) fn demo(options: &Options) -> ExitCode {
    if let Err(reason) = become_able() {
        eprintln!("the demo cannot run here: {reason}");
        return ExitCode::from(2);
    }
    // Rather now than after half a minute.
    if let Some(path) = &options.svg
        && let Err(error) = fs::write(path, "")
    {
        eprintln!("{} cannot be written: {error}", path.display());
        return ExitCode::from(2);
    }
    let outcome = env::current_exe()
        .map_err(|source| LabError::Program { program: "outlive".to_owned(), source })
        .and_then(|program| {
            let demo = Demo {
                program,
                seed: options.seed,
                size: options.size.as_u64(),
                idle: options.idle,
                time: Duration::from_secs(options.seconds),
            };
            demo.run(if options.json { Display::Error } else { Display::Output }, options.plain)
        });
    match outcome {
        Ok(verdict) => tell(&verdict, options),
        Err(error) => {
            eprintln!("the demo cannot run here: {error}{}", advice(&error));
            ExitCode::from(2)
        }
    }
}

fn tell(verdict: &Verdict, options: &Options) -> ExitCode {
    if options.json {
        println!("{}", verdict.to_json());
    } else {
        let terminal = io::stdout().is_terminal();
        let colour = terminal && env::var_os("NO_COLOR").is_none();
        print!("{}", verdict.to_text(WIDTH, colour));
    }
    if let Some(path) = &options.svg {
        if let Err(error) = fs::write(path, verdict.to_svg()) {
            eprintln!("{} cannot be written: {error}", path.display());
            return ExitCode::from(2);
        }
        if !options.json {
            println!("The picture is in {}", path.display());
        }
    }
    match (verdict.ok(), verdict.interrupted()) {
        (true, _) => ExitCode::SUCCESS,
        // What a shell makes of SIGINT.
        (false, true) => ExitCode::from(130),
        (false, false) => ExitCode::FAILURE,
    }
}

/// Does what is possible for the privileges that the demo needs: an ordinary user becomes root of
/// namespaces of its own. Does not return if the program is started again for that.
fn become_able() -> Result<(), String> {
    tun::check_driver().map_err(|error| error.to_string())?;
    if !privilege::missing().contains(&Missing::NetAdmin) || user_namespace::is_inside() {
        return Ok(());
    }
    let error = user_namespace::reexec();
    Err(format!(
        "it needs network namespaces. You are not root, and this machine does not let you become \
         root of a namespace of your own ({error}).\n\
         Run it as root (sudo), or allow user namespaces: on Debian and Ubuntu, `sysctl \
         kernel.unprivileged_userns_clone=1 kernel.apparmor_restrict_unprivileged_userns=0`, \
         whichever of them exists"
    ))
}

/// What to do about an error of the set-up.
fn advice(error: &LabError) -> &'static str {
    match error {
        LabError::Namespace(_) | LabError::Netlink(_) | LabError::Sysctl { .. } => {
            "\nIt builds its own network in namespaces and needs to be root for that. In a \
             container, root is not enough: start it with `--privileged --device /dev/net/tun`"
        }
        _ => "",
    }
}
