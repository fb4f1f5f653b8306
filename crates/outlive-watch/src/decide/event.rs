//! What an operator may want to reconstruct a night by.

use std::fmt;

use outlive_proxy::{
    config::NodeId,
    pair::{Epoch, order::Outcome},
};

/// Something that was found, decided or done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The node answers (again).
    Answers {
        /// Which.
        node: NodeId,
    },
    /// The node does not answer any more.
    Fails {
        /// Which.
        node: NodeId,
    },
    /// The node is the active one now.
    Leads {
        /// Which.
        node: NodeId,
        /// In which epoch.
        epoch: Epoch,
    },
    /// No node that answers is active.
    NobodyLeads,
    /// Connections through the virtual address succeed again, or do not any more.
    Check {
        /// They do.
        succeeds: bool,
    },
    /// A takeover is due: the packets are redirected, then the node is told.
    Redirects {
        /// To which node.
        to: NodeId,
        /// Though it does not hold everything.
        forced: bool,
    },
    /// Nobody leads, but nothing can be done for now.
    Waits(Obstacle),
    /// The switch leads to this node.
    Switched {
        /// Which.
        to: NodeId,
    },
    /// The switch could not be led to this node.
    SwitchFailed {
        /// Which.
        to: NodeId,
    },
    /// The node was told to take over.
    Ordered {
        /// Which.
        node: NodeId,
        /// The highest epoch that was seen.
        epoch: Epoch,
        /// Though it does not hold everything.
        forced: bool,
    },
    /// What the node makes of the order.
    Outcome {
        /// Which.
        node: NodeId,
        /// What became of it.
        outcome: Outcome,
    },
}

/// Why nothing is done though nobody leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// Neither node answers.
    NobodyAnswers,
    /// Both answer; it may be a handover, which passes.
    MayPass,
    /// Connections through the virtual address succeed.
    CheckSucceeds,
    /// This node hears the other one serve.
    StandbyHears {
        /// Which.
        node: NodeId,
    },
    /// The best that there is does not hold every session.
    NotSynchronised {
        /// Which.
        node: NodeId,
    },
}

impl Event {
    /// Whether it is not as it should be.
    pub fn is_warning(&self) -> bool {
        match self {
            Event::Answers { .. }
            | Event::Leads { .. }
            | Event::Check { succeeds: true }
            | Event::Switched { .. }
            | Event::Waits(Obstacle::MayPass) => false,
            Event::Outcome { outcome, .. } => !outcome.obeys(),
            _ => true,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let although =
            |forced: bool| if forced { ", though it does not hold everything" } else { "" };
        match *self {
            Event::Answers { node } => write!(f, "node {} answers", name(node)),
            Event::Fails { node } => write!(f, "node {} does not answer", name(node)),
            Event::Leads { node, epoch } => {
                write!(f, "node {} is active in epoch {epoch}", name(node))
            }
            Event::NobodyLeads => f.write_str("no node that answers is active"),
            Event::Check { succeeds: true } => {
                f.write_str("connections through the virtual address succeed")
            }
            Event::Check { succeeds: false } => {
                f.write_str("connections through the virtual address fail")
            }
            Event::Redirects { to, forced } => {
                write!(f, "redirecting the packets to node {}{}", name(to), although(forced))
            }
            Event::Waits(obstacle) => write!(f, "nothing is done: {obstacle}"),
            Event::Switched { to } => write!(f, "the packets are led to node {}", name(to)),
            Event::SwitchFailed { to } => {
                write!(f, "the packets could not be led to node {}", name(to))
            }
            Event::Ordered { node, epoch, forced } => write!(
                f,
                "told node {} to take over from epoch {epoch}{}",
                name(node),
                although(forced)
            ),
            Event::Outcome { node, outcome } => {
                write!(f, "node {} was told to take over: {outcome}", name(node))
            }
        }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Obstacle::NobodyAnswers => f.write_str("neither node answers"),
            Obstacle::MayPass => f.write_str("it may be a handover"),
            Obstacle::CheckSucceeds => {
                f.write_str("connections through the virtual address succeed all the same")
            }
            Obstacle::StandbyHears { node } => {
                write!(f, "node {} hears the other one serve", name(node))
            }
            Obstacle::NotSynchronised { node } => {
                write!(f, "node {} does not hold every session", name(node))
            }
        }
    }
}

/// A node's name as in its configuration.
pub(crate) fn name(node: NodeId) -> char {
    match node {
        NodeId::A => 'a',
        NodeId::B => 'b',
    }
}
