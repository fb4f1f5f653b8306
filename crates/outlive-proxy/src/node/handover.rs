//! Planned handover: the active node moves everything to its standby while both are alive.
//!
//! ```text
//!   active                                        standby
//!     settles: connections that are being opened finish; packets of new ones are kept
//!     ──── Changes, Handover(epoch, clock) ───────▶   it holds everything: takes the addresses,
//!                                                     begins the epoch of a takeover
//!     ◀──────────────────────────── Taken(epoch) ──
//!     standby; what was kept, and what still
//!     reaches it, it passes or relays ────────────▶   Begin, Snapshot, … : the roles on the
//!     ◀────────────────────────────────────────────   connection are exchanged
//! ```
//!
//! Packets that reached the old active node before its neighbours heard of the new one are on their way through it while
//! later ones arrive at the new one. Those wait in its device until the old one says that nothing is behind any more
//! (`Passed`), or for [`HOLDING`]: overtaken, they would look lost to their receivers.
//!
//! Sessions of which the standby would be told only with their first data ([`Synchronise::FirstData`]) are told before.
//!
//! [`Synchronise::FirstData`]: crate::config::Synchronise
//!
//! A fast path is stopped first, and heard to its end, so that nothing changes behind the node's back.
//!
//! From the question to the answer, the active node changes nothing: data of established sessions is translated on
//! (the peer would do the same with it), all else is kept. So it does not matter whether the standby has acted
//! already. If the connection breaks in between, that is found out as after any other loss of the standby: the
//! peer is heard to be active (then it has taken over), or to know of the loss, or it is gone (then this node goes on).

use std::{fmt, time::Duration};

use outlive_tcp::{time::Time, wire::Offload};

use super::Node;
use crate::{
    clock::HANDOVER_MARGIN,
    config::Detector,
    counters::Counter,
    event::{CloseReason, Event, LogEvent, TakeoverCause},
    pair::{Decision, Epoch},
    proxy::Leaving,
    status::Survival,
};

/// How long servers that were asked for a connection may take to answer. What is not open then, the other node opens
/// anew.
const SETTLING: Duration = Duration::from_millis(100);
/// How long late packets are passed on and relayed: longer than the announcements are repeated, and a packet lives.
pub(crate) const RELAYING: Duration = Duration::from_secs(2);

/// The new active node lets packets wait for those that still reach the old one for so long at most.
const HOLDING: Duration = Duration::from_millis(50);
/// When no packet has come for so long, or this long after the handover, none is behind any more. On a busy machine the kernel lets
/// one wait for as long as it lets other programs run.
const STRAGGLING: Duration = Duration::from_millis(4);
const LAST_STRAGGLER: Duration = Duration::from_millis(20);

/// How far a planned handover has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) enum Handover {
    /// There is none.
    #[default]
    No,
    /// What is being opened may finish until then.
    Settling { until: Time },
    /// The standby was asked then.
    Asked { since: Time },
    /// The connection broke before the standby answered.
    Unanswered,
    /// It has taken over. Late packets are relayed until then.
    Relaying { until: Time, epoch: Epoch, stragglers: Stragglers },
}

/// Whether packets that came before the neighbours heard of the handover may still be behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stragglers {
    /// Until then at the latest.
    Until(Time),
    /// None is, and the peer was told.
    Passed,
}

/// Why a node cannot hand over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandoverRefusal {
    /// It is not the active one.
    NotActive,
    /// One is under way.
    UnderWay,
    /// An external detector decides which node is active.
    Watched,
    /// It stood still, and does not know whether it is still the active one.
    Unsure,
    /// The standby does not hold everything.
    NotSurvivable(Survival),
    /// The standby is an earlier version that does not take over when it is asked to.
    PeerTooOld,
}

impl fmt::Display for HandoverRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HandoverRefusal::NotActive => "this node is not the active one: ask the other",
            HandoverRefusal::Watched => "an external detector decides which node is active, and switches the packets: only it can move them",
            HandoverRefusal::UnderWay => "a handover is under way",
            HandoverRefusal::Unsure => "this node stood still, and asks its peer whether it is still active: try again",
            HandoverRefusal::NotSurvivable(Survival::NoPeer) => "this node has no peer in its configuration",
            HandoverRefusal::NotSurvivable(Survival::PeerGone) => "the peer is not heard",
            HandoverRefusal::NotSurvivable(Survival::NotConnected) => "there is no state connection",
            HandoverRefusal::NotSurvivable(_) => "the standby does not hold every session yet: try again when `outlive status` says so",
            HandoverRefusal::PeerTooOld => "the standby runs a version that cannot take over when it is asked to: stop this node, and it will",
        })
    }
}

/// How far a planned handover has come, as an operator sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandoverProgress {
    /// There is none.
    None,
    /// This node is active, and the standby is about to take over.
    UnderWay,
    /// The other node has taken over; late packets are relayed to it.
    Relaying,
}

impl Node {
    /// Begins to hand everything over to the standby. How far that has come is told by
    /// [`status`](Self::status); it ends in [`Event::Relay`] and, a little later, [`Event::Deactivate`], or in
    /// [`LogEvent::HandoverFailed`].
    ///
    /// # Errors
    /// Why it cannot be done now. Nothing was changed.
    pub fn hand_over(&mut self, now: Time) -> Result<(), HandoverRefusal> {
        self.turn(now);
        if !self.pair.is_active() {
            return Err(HandoverRefusal::NotActive);
        }
        if self.proxy.config.pair.detector == Detector::External {
            return Err(HandoverRefusal::Watched);
        }
        if self.handover != Handover::No {
            return Err(HandoverRefusal::UnderWay);
        }
        if self.pair.is_unsure() {
            return Err(HandoverRefusal::Unsure);
        }
        match self.status(now).survival() {
            Survival::Yes if !self.link.peer_hands_over() => Err(HandoverRefusal::PeerTooOld),
            Survival::Yes => {
                self.handover = Handover::Settling { until: now + SETTLING };
                self.proxy.posture.leaving = Leaving::Settling;
                self.proxy.begin_telling_untold(now);
                self.fast_path_quiet = !self.proxy.has_fast_path();
                self.log(LogEvent::HandoverBegun);
                Ok(())
            }
            reason => Err(HandoverRefusal::NotSurvivable(reason)),
        }
    }

    /// A packet that the shell has to hand in like one that its device gives it: the peer has relayed it, or it was
    /// kept for a while. Written to the end of `packet`; its length tells where it begins.
    pub fn poll_arrived(&mut self, now: Time, packet: &mut Vec<u8>) -> Option<Offload> {
        let (bytes, offload) = self.proxy.arrived.pop(now)?;
        packet.extend_from_slice(&bytes);
        Some(offload)
    }

    /// Whether [`poll_arrived`](Self::poll_arrived) has something.
    pub fn has_arrived(&self) -> bool {
        !self.proxy.arrived.is_empty()
    }

    /// How far a planned handover has come.
    pub fn handover(&self) -> HandoverProgress {
        match self.handover {
            Handover::No => HandoverProgress::None,
            Handover::Relaying { .. } => HandoverProgress::Relaying,
            _ => HandoverProgress::UnderWay,
        }
    }

    pub(super) fn handover_deadline(&self) -> Option<Time> {
        match self.handover {
            Handover::Relaying { stragglers: Stragglers::Until(last), .. } => {
                Some(last.min(self.proxy.late_at + STRAGGLING))
            }
            Handover::Settling { until } => Some(self.proxy.untold_deadline().unwrap_or(until)),
            Handover::Relaying { until, .. } => Some(until),
            Handover::Asked { since } => Some(since + self.proxy.config.pair.confirm_timeout),
            Handover::No | Handover::Unanswered => None,
        }
    }

    /// The next step, if it is time for it.
    pub(super) fn advance_handover(&mut self, now: Time) {
        match self.handover {
            Handover::Settling { until } => {
                let moving = self.proxy.is_connecting() || self.proxy.has_untold_targets();
                let opening = moving && now < until;
                if now >= until {
                    self.proxy.undo_untold(now, None);
                }
                let untold = self.proxy.tell_untold(now);
                let waiting = self.proxy.waiting_since().is_some();
                if !opening && !untold && !waiting && self.fast_path_quiet && self.pair.is_paired()
                {
                    self.proxy.posture.leaving = Leaving::Settled;
                    self.link.hand_over(self.pair.epoch());
                    self.handover = Handover::Asked { since: now };
                }
            }
            Handover::Asked { since } if now >= since + self.proxy.config.pair.confirm_timeout => {
                self.events.push_back(Event::CloseStateConnection(CloseReason::NoConfirmation));
                self.drop_link(now);
            }
            Handover::Relaying { until, epoch, stragglers: Stragglers::Until(last) }
                if now >= last.min(self.proxy.late_at + STRAGGLING) =>
            {
                self.link.say_passed();
                let stragglers = Stragglers::Passed;
                self.handover = Handover::Relaying { until, epoch, stragglers };
            }
            Handover::Relaying { until, epoch, .. } if now >= until => {
                self.end_relaying();
                self.proxy.take_all_back(now);
                self.events.push_back(Event::Deactivate { epoch });
            }
            _ => {}
        }
    }

    /// The state connection is gone.
    pub(super) fn handover_disconnected(&mut self, now: Time) {
        match self.handover {
            Handover::Settling { .. } => self.handover_failed(now),
            Handover::Asked { .. } => self.handover = Handover::Unanswered,
            _ => {}
        }
    }

    /// It is settled that this node goes on serving.
    pub(super) fn handover_failed(&mut self, now: Time) {
        if matches!(self.handover, Handover::No | Handover::Relaying { .. }) {
            return;
        }
        self.handover = Handover::No;
        self.proxy.posture.leaving = Leaving::No;
        self.proxy.readmit(now);
        // What agents have said meanwhile was not listened to.
        self.proxy.migrations_serve();
        self.log(LogEvent::HandoverFailed);
    }

    /// Whether the standby was asked to take over, so that its being active is what was wanted.
    pub(super) fn has_asked(&self) -> bool {
        matches!(self.handover, Handover::Asked { .. } | Handover::Unanswered)
    }

    /// The standby has taken over in `epoch`, as it was asked to; this node is the standby now.
    pub(super) fn handed_over(&mut self, now: Time, epoch: Epoch) {
        let sessions = self.proxy.session_count();
        self.proxy.counters.add(Counter::HandedOver, sessions as u64);
        self.log(LogEvent::HandedOver { epoch, sessions });
        // On the connection on which it was asked, the roles are exchanged; any other begins anew.
        let asked_here = matches!(self.handover, Handover::Asked { .. });
        self.proxy.late_at = now;
        let stragglers = Stragglers::Until(now + LAST_STRAGGLER);
        self.handover = Handover::Relaying { until: now + RELAYING, epoch, stragglers };
        self.proxy.posture.active = false;
        self.proxy.posture.leaving = Leaving::Settled;
        self.proxy.relay_openings(now);
        self.proxy.remove_all_openings();
        self.proxy.abandon_unconfirmed(now);
        // Until this node has been told everything, the other one completes handshakes of which it knows nothing.
        let timeouts = &self.proxy.config.timeouts;
        let remembered = timeouts.time_wait.min(timeouts.reset_linger) / 2;
        self.proxy.keys.set_aside(now + remembered);
        self.announcement = None;
        self.events.push_back(Event::Relay { epoch });
        self.proxy.journal.stop();
        if asked_here {
            self.link.handed_over();
        } else {
            self.close_link(now);
        }
    }

    /// The active node, whose clock stands at `clock_us`, has told everything and asks this one to take over.
    pub(super) fn take_over_as_asked(&mut self, now: Time, clock_us: u64) {
        let cause = TakeoverCause::Handover;
        self.pair.done(Decision::TakeOver(cause));
        let epoch = self.pair.epoch();
        let margin = HANDOVER_MARGIN.as_micros() as u64;
        self.proxy.clock.follow(now, clock_us.saturating_add(margin));
        self.proxy.counters.count(Counter::Takeovers);
        let sessions = self.proxy.session_count();
        self.log(LogEvent::TookOver { epoch, cause, sessions, complete: true });
        self.serve(now, self.proxy.config.pair.quiet_time);
        self.proxy.inherit(now);
        self.holding = self.link.peer_tells_passed().then_some(now + HOLDING);
        self.link.took_over(now, epoch, &mut self.proxy);
        self.sync_posture();
    }

    /// Whether what the device has shall stay there for now: packets that were sent before it are still on their way
    /// through the other node. To handle it nevertheless does no harm but that it comes out of order.
    pub fn holds_packets(&self, now: Time) -> bool {
        self.holding.is_some_and(|until| now < until)
    }

    /// This node serves from now on, or has nothing to do with what comes any more.
    pub(super) fn end_relaying(&mut self) {
        self.handover = Handover::No;
        self.proxy.posture.leaving = Leaving::No;
        self.proxy.to_relay.clear();
    }
}
