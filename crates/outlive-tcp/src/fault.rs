//! Deliberate faults: each breaks one rule, so that the simulator can show that it would notice.
//!
//! They exist only with the feature `deliberate-faults`, which nothing but the simulator's command `mutants`
//! turns on. Without it [`on`] is the constant `false`, and what hangs on it is compiled away. With it
//! nothing is different either until `select` chooses a fault for the calling thread.
//!
//! They are listed here, in the lowest crate, because a thread commits only one of them at a time, wherever
//! in the two pure crates it lies.

macro_rules! faults {
    ($($(#[doc = $doc:literal])* $fault:ident = $name:literal,)*) => {
        /// A deliberate fault.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Fault {
            $($(#[doc = $doc])* $fault,)*
        }

        impl Fault {
            /// Every fault.
            pub const ALL: &[Fault] = &[$(Fault::$fault),*];

            /// Its name in reports.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Fault::$fault => $name,)*
                }
            }

            /// What the code does instead of the right thing.
            pub const fn meaning(self) -> &'static str {
                match self {
                    $(Fault::$fault => concat!($($doc),*).trim_ascii_start(),)*
                }
            }
        }
    };
}

faults! {
    /// First data is acknowledged when it comes, before a server has it.
    AcknowledgeEarly = "acknowledge-early",
    /// A session has effects before the standby has confirmed its record.
    RecordAfterEffect = "record-after-effect",
    /// A confirmation is taken for one of everything.
    ConfirmationNotCompared = "confirmation-not-compared",
    /// A FIN is not counted, so a session never ends.
    ForgetFin = "forget-fin",
    /// An active node ignores that there is a higher epoch.
    HigherEpochIgnored = "higher-epoch-ignored",
    /// An active node yields to a lower epoch.
    StaleEpochAccepted = "stale-epoch-accepted",
    /// Two nodes may begin the same epoch.
    SameEpochTwice = "same-epoch-twice",
    /// A takeover does not raise the epoch.
    EpochNotRaised = "epoch-not-raised",
    /// A standby goes on believing cookies when the active node goes on without it.
    LonelyCookieAdopted = "lonely-cookie-adopted",
    /// Timestamps of a session that was taken over are passed on as they come.
    TimestampNotCarriedOver = "timestamp-not-carried-over",
    /// A standby does not follow the pair's clock, and a takeover does not move it ahead.
    ClockRunsBack = "clock-runs-back",
    /// A node that was replaced resets the connections that it still gets segments of.
    ResetFromOldOwner = "reset-from-old-owner",
    /// Segments of unknown connections are reset at once after a takeover.
    QuietTimeSkipped = "quiet-time-skipped",
    /// A client whose handshake was not seen is reset at its first segment.
    ResetInsteadOfSilence = "reset-instead-of-silence",
    /// A window field is passed on in the scale in which it came.
    WindowNotRescaled = "window-not-rescaled",
    /// Every reset is believed, wherever it stands.
    ResetOutsideBelieved = "reset-outside-believed",
    /// Acknowledgments of the inserted prefix are passed on as they are.
    PrefixNotClamped = "prefix-not-clamped",
    /// The inserted prefix is sent once, and never again.
    PrefixNotRepeated = "prefix-not-repeated",
    /// A standby does not keep the inserted prefix.
    PrefixNotReplicated = "prefix-not-replicated",
    /// The edges of SACK blocks are passed on as they come.
    SackNotTranslated = "sack-not-translated",
    /// Both nodes take source ports from the same half.
    PortsOfTheOther = "ports-of-the-other",
    /// A standby counts as synchronised before it was told anything.
    PromotedUnsynchronised = "promoted-unsynchronised",
    /// A standby that does not hold everything takes over as quickly as one that does.
    HastyTakeover = "hasty-takeover",
    /// Silence on one heartbeat path is taken for silence on all.
    OnePathIsAll = "one-path-is-all",
    /// Every third change is not written down.
    ChangeDropped = "change-dropped",
    /// What a synchronisation does not tell first is removed at its beginning.
    PictureReplacedEarly = "picture-replaced-early",
    /// Sessions that wait for the standby are left out when it is told everything.
    RecordLostOnReconnect = "record-lost-on-reconnect",
    /// A standby that does not confirm is waited for without end.
    WedgedStandbyKept = "wedged-standby-kept",
    /// A cookie opens a connection again after its session was removed.
    SpentCookieAdopted = "spent-cookie-adopted",
    /// A probe stands where the next byte is expected.
    ProbeInWindow = "probe-in-window",
    /// The answer of a forgotten connection to the node's own probe is passed on.
    ProbeResetPassedOn = "probe-reset-passed-on",
    /// Segments are passed on, however long they are.
    SegmentsNotLimited = "segments-not-limited",
    /// An idle session is ended with resets.
    IdleTimerResets = "idle-timer-resets",
    /// A standby forgets the sessions of which it sees no segments.
    StandbyForgetsIdle = "standby-forgets-idle",
    /// An ICMP error is passed on with the quotation that it came with.
    IcmpNotReaddressed = "icmp-not-readdressed",
    /// Segments that come after the end of a session are dropped.
    DeafAfterTheEnd = "deaf-after-the-end",
    /// A node that stood still goes on without asking.
    StandstillIgnored = "standstill-ignored",
    /// A node takes over by itself though an external detector decides.
    DetectorNotAwaited = "detector-not-awaited",
    /// Without its standby, a node lets sessions have effects before its peer knows that it goes on alone.
    GoesAloneAtOnce = "goes-alone-at-once",
    /// A target is told to speak before the standby knows of it.
    CommitBeforeConfirmation = "commit-before-confirmation",
    /// What the standby is told of a migrated connection is left out.
    MappingNotReplicated = "mapping-not-replicated",
    /// A connection that was to be let speak goes to another target when the one that was asked is not reached.
    SecondTargetAfterCommit = "second-target-after-commit",
    /// A target is asked once to let a connection speak, and never again.
    CommitNotRepeated = "commit-not-repeated",
    /// A target that was not told to speak, and has lost the connection, is asked for it.
    UntoldNotUndone = "untold-not-undone",
    /// The mapping of a migrated connection stays when it has ended.
    MappingLeaked = "mapping-leaked",
    /// A target lets a connection speak as soon as it has it.
    TargetSpeaksEarly = "target-speaks-early",
    /// A target obeys an epoch that is over.
    TargetObeysOldEpoch = "target-obeys-old-epoch",
    /// A target takes tunnelled packets from anybody.
    StrangersInTunnel = "strangers-in-tunnel",
    /// A flood of SYNs is held, and not challenged.
    FloodNotChallenged = "flood-not-challenged",
    /// The checksum stays as it was.
    ChecksumNotUpdated = "checksum-not-updated",
    /// A terminated session acknowledges what was written to the other end, before that has acknowledged it.
    TerminatedAcknowledgesEarly = "terminated-acknowledges-early",
    /// A terminated session has effects before the standby has confirmed its record.
    TerminatedBeforeRecord = "terminated-before-record",
    /// After a takeover, the streams of a terminated session go on where their senders are, not where they were received.
    TerminatedResumedAhead = "terminated-resumed-ahead",
    /// The inserted prefix of a terminated session is sent again whenever it is gone on with.
    TerminatedPrefixRepeated = "terminated-prefix-repeated",
    /// The end of a terminated stream is acknowledged when it has come, and not when it was passed on.
    TerminatedEndAcknowledgedEarly = "terminated-end-acknowledged-early",
    /// A program's transaction takes effect before the standby is told of it.
    TransactionBeforeStandby = "transaction-before-standby",
    /// A program's transaction takes effect when its record has left, before it is confirmed.
    TransactionUnconfirmed = "transaction-unconfirmed",
    /// What a program decided is told to the standby without its output.
    OutputNotTold = "output-not-told",
    /// A connection goes on at the standby one byte behind what was acknowledged.
    PositionOffByOne = "position-off-by-one",
    /// A program's state of a connection is told to the standby only once.
    StateNotTold = "state-not-told",
}

/// Whether the calling thread commits `fault`.
#[cfg(not(feature = "deliberate-faults"))]
#[inline(always)]
pub const fn on(_fault: Fault) -> bool {
    false
}

#[cfg(feature = "deliberate-faults")]
pub use selection::{on, select};

#[cfg(feature = "deliberate-faults")]
mod selection {
    use std::cell::Cell;

    use super::Fault;

    thread_local! {
        static SELECTED: Cell<Option<Fault>> = const { Cell::new(None) };
    }

    /// Whether the calling thread commits `fault`.
    pub fn on(fault: Fault) -> bool {
        SELECTED.get() == Some(fault)
    }

    /// From now on the calling thread commits this fault, or none.
    pub fn select(fault: Option<Fault>) {
        SELECTED.set(fault);
    }
}

/// Whether faults can be committed in this build.
pub const POSSIBLE: bool = cfg!(feature = "deliberate-faults");
