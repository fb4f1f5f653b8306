//! The log: lines for people or JSON objects, to standard error.

use std::io::{self, IsTerminal};

use outlive_node::settings::LogFormat;
use tracing_subscriber::{EnvFilter, filter::LevelFilter, fmt};

/// Variable of the environment that says how much is logged: `debug`, `outlive_node=debug`, ...
const VARIABLE: &str = "OUTLIVE_LOG";

/// Begins to log. Only the first call in a process has an effect.
pub(crate) fn begin(format: LogFormat) {
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .with_env_var(VARIABLE)
        .from_env_lossy();
    let builder = fmt().with_env_filter(filter).with_writer(io::stderr).with_target(false);
    // Whatever began before goes on.
    let _ = match format {
        LogFormat::Text => builder.with_ansi(io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}
