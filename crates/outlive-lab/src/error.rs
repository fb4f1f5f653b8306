//! Why a lab could not be built or a scenario could not run.

use std::io;
use std::path::PathBuf;

use outlive_net::netlink::NetlinkError;
use outlive_net::netns::NamespaceError;
use outlive_net::tun::TunError;

/// An error of the machine or of the scenario's set-up. What a scenario is there to find out, such
/// as a lost connection, is not an error but part of its report.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// Neither root, nor able to become root of a user namespace.
    #[error("a lab needs root, or a user namespace: {0}")]
    MayNot(String),
    /// A namespace could not be made or entered.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// The kernel refused a change to an interface, address or route.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// A TAP device of an impaired link could not be opened.
    #[error(transparent)]
    Tun(#[from] TunError),
    /// A kernel setting could not be written.
    #[error("setting {name} to {value}: {source}")]
    Sysctl {
        /// Its name below `/proc/sys`, with slashes.
        name: String,
        /// The value wanted.
        value: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A traffic thread, its listeners or its poll failed.
    #[error("{0}: {1}")]
    Traffic(&'static str, io::Error),
    /// The list of subjects is empty.
    #[error("there is nothing to compare")]
    NothingToCompare,
    /// The scenario needs the Outlive program.
    #[error(
        "the outlive program is not beside this one: build it (cargo build --release -p outlive) \
         or name it with --program"
    )]
    NoProgram,
    /// The scenario needs the log receiver of the examples.
    #[error(
        "the log-receiver program is not beside this one: build it (cargo build --release -p \
         log-receiver) or name it with --receiver"
    )]
    NoReceiver,
    /// The scenario needs the library that records what is durable.
    #[error(
        "liboutlive_powercut.so is not beside this program: build it (cargo build --release -p \
         outlive-powercut) or name it with --powercut"
    )]
    NoPowerCut,
    /// A plain link does not pass through this process.
    #[error("a plain link cannot be overheard; make it an impaired one")]
    NothingToOverhear,
    /// More connections than there is room for.
    #[error("there is room for {most} connections only")]
    TooMany {
        /// How many would fit.
        most: u64,
    },
    /// Neither node of a pair says that it is active.
    #[error("neither node is active")]
    NobodyActive,
    /// A picture could not be saved.
    #[error("saving {}: {source}", path.display())]
    Picture {
        /// Where to.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A program could not be started or asked.
    #[error("{program}: {source}")]
    Program {
        /// The program.
        program: String,
        /// What failed.
        source: io::Error,
    },
    /// Whoever watches the scenario wants it to end.
    #[error("given up before it was over")]
    GivenUp,
    /// Something that had to happen did not happen in time.
    #[error("waited {seconds} s in vain for {what}")]
    TimedOut {
        /// What was waited for.
        what: String,
        /// How long.
        seconds: u64,
    },
}
