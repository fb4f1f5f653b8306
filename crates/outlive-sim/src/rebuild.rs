//! Deliberate faults are not in an ordinary build: whoever asks for them gets the same command from a build
//! that has them, beside the ordinary one, so that neither takes the other's place.

use std::{
    env,
    path::PathBuf,
    process::{Command, ExitCode},
};

use anyhow::Context;

/// Runs this command, with the same arguments, in a build with the feature `deliberate-faults`.
///
/// # Errors
/// Cargo cannot be started, or this program does not lie in a target directory.
pub(crate) fn with_faults() -> anyhow::Result<ExitCode> {
    let program = env::current_exe().context("where is this program?")?;
    // target/release/outlive-sim
    let target = program.ancestors().nth(2).context("this program is in no target directory")?;
    let cargo = env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from);
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let status = Command::new(cargo)
        .args(["run", "--quiet", "--release", "--features", "deliberate-faults"])
        .args(["--manifest-path", manifest, "--target-dir"])
        .arg(target.join("deliberate-faults"))
        .arg("--")
        .args(env::args_os().skip(1))
        .status()
        .context("cargo cannot be started")?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, Into::into))
}
