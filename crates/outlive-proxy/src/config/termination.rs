//! What the sessions of a listener are.

/// How what one end says gets to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Termination {
    /// The two connections are one translation: windows, loss recovery and congestion control are the ends' own.
    #[default]
    Splice,
    /// Both connections end at the node, which is a TCP endpoint of its own to each, and acknowledges to one end what
    /// the other has acknowledged.
    Terminate,
}
