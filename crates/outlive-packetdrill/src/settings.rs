//! What `--so_flags` says: `name=value`, separated by commas.

use std::{net::IpAddr, str::FromStr, time::Duration};

use outlive_tcp::endpoint::{Acknowledge, Algorithm, Config};

/// How the stack behaves.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Of all connections, until a socket option says otherwise.
    pub(crate) config: Config,
    /// The address that connections come from which were not bound to one.
    pub(crate) local: IpAddr,
}

/// A flag that says nothing sensible.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    /// It has no `=`.
    #[error("`{0}` is not NAME=VALUE")]
    NoValue(String),
    /// There is no such setting.
    #[error("there is no setting `{0}`")]
    Unknown(String),
    /// The setting does not take that.
    #[error("`{name}` cannot be `{value}`")]
    Value { name: String, value: String },
}

impl Default for Settings {
    /// As a kernel would: everything that has arrived is acknowledged.
    fn default() -> Self {
        let config = Config { acknowledge: Acknowledge::OnReceipt, ..Config::default() };
        Settings { config, local: [192, 168, 0, 1].into() }
    }
}

impl FromStr for Settings {
    type Err = SettingsError;

    fn from_str(flags: &str) -> Result<Self, SettingsError> {
        let mut settings = Settings::default();
        for flag in flags.split(',').map(str::trim).filter(|flag| !flag.is_empty()) {
            let (name, value) =
                flag.split_once('=').ok_or_else(|| SettingsError::NoValue(flag.into()))?;
            settings.set(name, value)?;
        }
        Ok(settings)
    }
}

impl Settings {
    fn set(&mut self, name: &str, value: &str) -> Result<(), SettingsError> {
        let config = &mut self.config;
        let bad = || SettingsError::Value { name: name.into(), value: value.into() };
        match name {
            "local" => self.local = parsed(value).ok_or_else(bad)?,
            "mtu" => config.mtu = parsed(value).ok_or_else(bad)?,
            "receive-buffer" => {
                config.receive_buffer = parsed(value).ok_or_else(bad)?;
                config.withheld_limit = config.receive_buffer;
            }
            "send-buffer" => config.send_buffer = parsed(value).ok_or_else(bad)?,
            "acknowledge" => {
                config.acknowledge = match value {
                    "explicitly" => Acknowledge::Explicitly,
                    "on-read" => Acknowledge::OnRead,
                    "on-receipt" => Acknowledge::OnReceipt,
                    _ => return Err(bad()),
                }
            }
            "congestion" => config.congestion = algorithm(value).ok_or_else(bad)?,
            "delayed-ack-ms" => {
                config.delayed_ack = Duration::from_millis(parsed(value).ok_or_else(bad)?);
            }
            "min-rto-ms" => {
                config.min_rto = Duration::from_millis(parsed(value).ok_or_else(bad)?);
            }
            "sack" => config.sack = parsed(value).ok_or_else(bad)?,
            "timestamps" => config.timestamps = parsed(value).ok_or_else(bad)?,
            "window-scaling" => config.window_scaling = parsed(value).ok_or_else(bad)?,
            "ecn" => config.ecn = parsed(value).ok_or_else(bad)?,
            "nagle" => config.nagle = parsed(value).ok_or_else(bad)?,
            _ => return Err(SettingsError::Unknown(name.into())),
        }
        Ok(())
    }
}

/// The congestion control with that name, also with the one that Linux gives it.
pub(crate) fn algorithm(name: &str) -> Option<Algorithm> {
    match name {
        "cubic" => Some(Algorithm::Cubic),
        "reno" | "newreno" => Some(Algorithm::NewReno),
        _ => None,
    }
}

fn parsed<T: FromStr>(value: &str) -> Option<T> {
    value.parse().ok()
}
