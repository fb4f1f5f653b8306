//! Those that redirect packets, and the thread on which they do it: a command may take its time, and questions must go
//! on being asked.
//!
//! Several switches are told one after the other, in the order of the configuration, and all must have done it: the
//! first may be a fence that takes the failed node off the network.

mod exec;
mod route;
#[cfg(test)]
mod tests;

use std::{
    io,
    sync::{Arc, mpsc},
    thread,
};

use mio::Waker;
use outlive_proxy::{config::NodeId, pair::Epoch};
use tracing::{info, warn};

pub use self::{exec::ExecSwitch, route::RouteSwitch};
use outlive_net::netlink::NetlinkError;

/// Packets are to be led to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Redirection {
    /// The node that gets them from now on.
    pub to: NodeId,
    /// The highest epoch that was seen.
    pub epoch: Epoch,
    /// They should be led there already; whoever can see to that without harm does.
    pub again: bool,
}

/// Why packets could not be redirected.
#[derive(Debug, thiserror::Error)]
pub enum SwitchError {
    /// A route.
    #[error(transparent)]
    Route(#[from] NetlinkError),
    /// A command could not be started, or waited for.
    #[error("{command}: {error}")]
    Command {
        /// The program.
        command: String,
        /// What happened.
        error: io::Error,
    },
    /// A command ended badly.
    #[error("{command} ended with {status}")]
    Failed {
        /// The program.
        command: String,
        /// How it ended.
        status: std::process::ExitStatus,
    },
    /// A command took too long, and was killed.
    #[error("{command} was killed, because it took longer than {limit:?}")]
    TooLong {
        /// The program.
        command: String,
        /// How long it might have taken.
        limit: std::time::Duration,
    },
}

/// Something that redirects packets.
pub enum Switch {
    /// Routes of this machine.
    Route(RouteSwitch),
    /// A command.
    Exec(ExecSwitch),
}

impl Switch {
    fn redirect(&self, redirection: &Redirection) -> Result<(), SwitchError> {
        match self {
            Switch::Route(switch) => Ok(switch.redirect(redirection.to)?),
            // A command need not be harmless when repeated.
            Switch::Exec(_) if redirection.again => Ok(()),
            Switch::Exec(switch) => switch.redirect(redirection),
        }
    }
}

/// The thread of the switches. Dropping it lets it end after what it is doing.
pub struct Switches {
    requests: Option<mpsc::Sender<Redirection>>,
    results: mpsc::Receiver<(NodeId, bool)>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Switches {
    /// Starts the thread. `main` is woken when a redirection is done.
    ///
    /// # Errors
    /// There can be no thread.
    pub fn start(switches: Vec<Switch>, main: Arc<Waker>) -> io::Result<Self> {
        let (requests, incoming) = mpsc::channel::<Redirection>();
        let (outgoing, results) = mpsc::channel();
        let work = move || {
            let mut asserted = true;
            for redirection in incoming {
                let success = redirect(&switches, &redirection, &mut asserted);
                if redirection.again {
                    continue;
                }
                if outgoing.send((redirection.to, success)).is_err() {
                    return;
                }
                // Without it the loop looks at its next turn.
                let _ = main.wake();
            }
        };
        let thread = thread::Builder::new().name("switch".to_owned()).spawn(work)?;
        Ok(Switches { requests: Some(requests), results, thread: Some(thread) })
    }

    /// Redirects packets, after what was asked for before.
    pub fn request(&self, redirection: Redirection) {
        if let Some(requests) = &self.requests {
            // The thread ends only with its sender.
            let _ = requests.send(redirection);
        }
    }

    /// The next redirection that is done: where to, and whether it succeeded.
    pub fn poll(&self) -> Option<(NodeId, bool)> {
        self.results.try_recv().ok()
    }
}

impl Drop for Switches {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported by itself.
            let _ = thread.join();
        }
    }
}

/// `asserted`: whether the last time that it was only seen to, it succeeded; so that a failure is told once.
fn redirect(switches: &[Switch], redirection: &Redirection, asserted: &mut bool) -> bool {
    let failure = switches.iter().find_map(|switch| switch.redirect(redirection).err());
    match (&failure, redirection.again) {
        (Some(error), false) => warn!(%error, "the packets could not be redirected"),
        (Some(error), true) if *asserted => {
            warn!(%error, "the packets may not be led where they should be any more");
        }
        (None, true) if !*asserted => info!("the packets are led where they should be again"),
        _ => {}
    }
    *asserted = failure.is_none();
    failure.is_none()
}
