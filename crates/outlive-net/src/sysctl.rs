//! Settings of the kernel under `/proc/sys`: reading, checking, writing.
//!
//! Which settings the product needs is its own decision; this module compares and names what
//! is wrong. Keys are written with slashes (`net/ipv4/conf/eth0.100/send_redirects`), because
//! names of interfaces contain dots. Those under `net` belong to the network namespace of the
//! calling thread: for another one, call from
//! [`Namespace::run`](crate::netns::Namespace::run).

use std::{
    fmt, fs, io,
    path::{Component, Path, PathBuf},
};

use crate::Errno;

const ROOT: &str = "/proc/sys";

/// A setting that must have a certain value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// The setting, with slashes.
    pub key: String,
    /// What it must be; runs of white space count as one space.
    pub wanted: String,
}

/// A requirement that is not met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmet {
    /// The setting.
    pub key: String,
    /// What it must be.
    pub wanted: String,
    /// What it is.
    pub found: String,
}

impl Requirement {
    /// The setting `key` must be `wanted`.
    pub fn new(key: impl Into<String>, wanted: impl Into<String>) -> Requirement {
        Requirement { key: key.into(), wanted: wanted.into() }
    }

    /// Compares with what is set now. `None` if the requirement is met.
    pub fn check(&self) -> Result<Option<Unmet>, SysctlError> {
        let found = read(&self.key)?;
        if found == normalise(&self.wanted) {
            return Ok(None);
        }
        Ok(Some(Unmet { key: self.key.clone(), wanted: self.wanted.clone(), found }))
    }

    /// Sets the wanted value if another is set, which is returned so that it can be put back.
    ///
    /// A value that the kernel accepts but does not keep is an error.
    pub fn enforce(&self) -> Result<Option<Unmet>, SysctlError> {
        let unmet = self.check()?;
        if unmet.is_some() {
            write(&self.key, &self.wanted)?;
            if let Some(still) = self.check()? {
                return Err(SysctlError::NotKept(still));
            }
        }
        Ok(unmet)
    }
}

impl Unmet {
    /// Puts the value back that was found.
    pub fn restore(&self) -> Result<(), SysctlError> {
        write(&self.key, &self.found)
    }
}

impl fmt::Display for Unmet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Unmet { key, wanted, found } = self;
        write!(f, "{key} is {found}, but must be {wanted} (sysctl -w \"{key}={wanted}\")")
    }
}

/// All requirements that are not met.
pub fn unmet(requirements: &[Requirement]) -> Result<Vec<Unmet>, SysctlError> {
    let checked = requirements.iter().map(Requirement::check);
    checked.filter_map(Result::transpose).collect()
}

/// The value of a setting, runs of white space shortened to one space.
pub fn read(key: &str) -> Result<String, SysctlError> {
    let path = path_of(key)?;
    let text = fs::read_to_string(path).map_err(|error| refused(key, "reading", &error))?;
    Ok(normalise(&text))
}

/// Changes a setting.
pub fn write(key: &str, value: &str) -> Result<(), SysctlError> {
    let path = path_of(key)?;
    fs::write(path, value).map_err(|error| refused(key, "writing", &error))
}

/// Why a setting could not be read or changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SysctlError {
    /// The text is not the name of a setting.
    #[error("{key} is not the name of a setting (such as net/ipv4/ip_forward)")]
    InvalidKey {
        /// The text.
        key: String,
    },
    /// This kernel has no such setting, or not in this namespace, or no such interface.
    #[error("{key}: there is no such setting")]
    Absent {
        /// The setting.
        key: String,
    },
    /// The kernel refused.
    #[error("{action} {key}: {errno}")]
    Refused {
        /// The setting.
        key: String,
        /// "reading" or "writing".
        action: &'static str,
        /// Why.
        errno: Errno,
    },
    /// The kernel accepted the value, but another one reads back.
    #[error("the value did not last: {0}")]
    NotKept(Unmet),
}

fn refused(key: &str, action: &'static str, error: &io::Error) -> SysctlError {
    let key = key.to_owned();
    match error.kind() {
        io::ErrorKind::NotFound => SysctlError::Absent { key },
        _ => SysctlError::Refused { key, action, errno: Errno::of(error) },
    }
}

/// Where a setting is, never outside of the tree of settings.
fn path_of(key: &str) -> Result<PathBuf, SysctlError> {
    let relative = Path::new(key);
    let plain = relative.components().all(|part| matches!(part, Component::Normal(_)));
    if key.is_empty() || !plain {
        return Err(SysctlError::InvalidKey { key: key.to_owned() });
    }
    Ok(Path::new(ROOT).join(relative))
}

fn normalise(value: &str) -> String {
    value.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_stay_inside_the_tree() {
        for key in ["", "/etc/passwd", "../etc/passwd", "net/../../etc/passwd"] {
            assert_eq!(path_of(key), Err(SysctlError::InvalidKey { key: key.to_owned() }));
        }
        let vlan = path_of("net/ipv4/conf/eth0.100/send_redirects").unwrap();
        assert_eq!(vlan, Path::new("/proc/sys/net/ipv4/conf/eth0.100/send_redirects"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let kernel = read("kernel/ostype").unwrap();
        assert_eq!(Requirement::new("kernel/ostype", &kernel).check(), Ok(None));
        let unmet = Requirement::new("kernel/ostype", "Plan  9").check().unwrap().unwrap();
        assert_eq!(
            unmet.to_string(),
            "kernel/ostype is Linux, but must be Plan  9 (sysctl -w \"kernel/ostype=Plan  9\")"
        );
        let absent = read("net/ipv4/conf/nothing0/rp_filter").unwrap_err();
        assert!(matches!(absent, SysctlError::Absent { .. }), "{absent}");
    }
}
