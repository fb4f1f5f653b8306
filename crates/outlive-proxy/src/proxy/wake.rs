//! Waking up sessions after a takeover.
//!
//! What the dead node had read but not passed on is lost, and its senders wait for their retransmission
//! timers, backed off by now. One byte below what an end has received makes it repeat its acknowledgment;
//! translated, that is the one the dead node could not pass on, and it sets the sender going (RFC 9293,
//! 3.10.7.4: an unacceptable segment is answered with an acknowledgment). No timestamp option: an old one
//! would go unanswered.

use std::time::Duration;

use outlive_tcp::{
    cookie::COOKIE_LIFETIME,
    fault::{self, Fault},
    segment::Segment,
    time::Time,
    wire::{Flags, Options, TcpPacket},
};

use super::Proxy;
use crate::{
    counters::Counter,
    flows::Side,
    session::{Phase, Session},
};

/// Sessions woken in one go, and the time until the next: 256,000 in a second, less than would fill the
/// device's queue.
const BATCH: usize = 256;
const PAUSE: Duration = Duration::from_millis(1);
/// While the device has more packets than can be handled, these go first: most of them have been repeated, and are lost
/// again if the queue overflows. But after so long the next are woken nevertheless.
const PATIENCE: Duration = Duration::from_millis(20);
/// Places of the table that are looked at in one go.
const LOOKED_AT: usize = 16_384;
/// A session that was told to be busy so long ago may be still.
const BUSY: Duration = Duration::from_secs(120);
/// How long an answer to a probe may take.
const ANSWER_TIME: Duration = Duration::from_secs(3);

/// How far waking has come.
#[derive(Debug, Default)]
pub(crate) struct WakeUp {
    /// Next slot, and when.
    next: Option<(usize, Time)>,
    /// All sessions are walked over twice: those that are busy come first.
    first: bool,
    /// When this node took over.
    began: Time,
    /// What is known of sessions up to this serial is not to be relied on: another node has had to do with them.
    doubted: Option<u32>,
    /// Until then, it waits as long as there is too much else to do.
    waits_until: Time,
    /// Until then, an answer to a probe may come.
    answers_until: Time,
    /// Until then, a handshake that the old active node began may be completed here.
    cookies_until: Time,
}

impl WakeUp {
    pub(crate) fn deadline(&self) -> Option<Time> {
        self.next.map(|(_, at)| at)
    }
}

impl Proxy {
    /// Begins to wake up every session.
    pub(crate) fn wake_all(&mut self, now: Time) {
        self.wake_up.next = Some((0, now));
        self.resume_all_terminated(now);
        self.wake_up.first = true;
        self.wake_up.began = now;
        self.wake_up.cookies_until = now + COOKIE_LIFETIME;
        self.wake_some(now);
    }

    /// Another node may have served while this one stood still, and is gone: every session is woken up as one that was
    /// that node's.
    pub(crate) fn doubt_all(&mut self, now: Time) {
        self.take_all_back(now);
        self.picture = self.picture.max(1);
        self.wake_up.doubted = Some(self.sessions.serial());
        self.wake_all(now);
    }

    /// The sessions were handed over: nothing was lost that somebody would have to be woken up for. Only prefixes
    /// have been the other node's to repeat.
    pub(crate) fn inherit(&mut self, now: Time) {
        self.wake_up.cookies_until = now + COOKIE_LIFETIME;
        self.resume_all_terminated(now);
        let unsaid: Vec<usize> = self.prefixes.keys().copied().collect();
        for slot in unsaid {
            if prefix_is_due(&self.sessions[slot]) {
                self.send_prefix(now, slot);
            }
        }
    }

    /// Whether a client may still come with a cookie that the node had made from which this one took over.
    pub(crate) fn cookies_may_be_the_others(&self, now: Time) -> bool {
        now < self.wake_up.cookies_until
    }

    /// A cookie was sent: its client may come back with it for some time.
    pub(crate) fn cookie_sent(&mut self, now: Time) {
        self.own_cookies_until = now + COOKIE_LIFETIME;
    }

    /// Whether a client may still come with anybody's cookie.
    pub(crate) fn cookies_may_come(&self, now: Time) -> bool {
        now < self.own_cookies_until || self.cookies_may_be_the_others(now)
    }

    pub(crate) fn wake_some(&mut self, now: Time) {
        let Some((mut slot, _)) = self.wake_up.next.take_if(|(_, at)| *at <= now) else { return };
        if self.posture.backlog && !self.wake_up.first && now < self.wake_up.waits_until {
            self.wake_up.next = Some((slot, now + PAUSE));
            return;
        }
        self.wake_up.waits_until = now + PATIENCE;
        self.wake_up.answers_until = now + ANSWER_TIME;
        let end = slot + LOOKED_AT;
        let mut woken = 0;
        while let Some((found, session)) = self.sessions.next_from(slot) {
            if found >= end || woken == BATCH {
                self.wake_up.next = Some((found, now + PAUSE));
                return;
            }
            slot = found + 1;
            let doubted = self.wake_up.doubted.filter(|_| self.wake_up.first && session.told);
            if session.phase != Phase::Unconfirmed
                && doubted.is_some_and(|last| last.wrapping_sub(session.serial) < 1 << 31)
            {
                self.sessions[found].is_doubted(self.picture);
            }
            if self.wake_up.first == self.was_busy(&self.sessions[found]) {
                woken += usize::from(self.wake(now, found));
            }
        }
        if std::mem::take(&mut self.wake_up.first) {
            self.wake_up.doubted = None;
            self.wake_up.next = Some((0, now + PAUSE));
        }
    }

    /// Whether the other node had said, not long before it failed, how far this session of its was, and nothing has
    /// been seen of it since.
    fn was_busy(&self, session: &Session) -> bool {
        let recently = self.wake_up.began - BUSY..=self.wake_up.began;
        session.is_inherited()
            && session.last_seen > session.since
            && recently.contains(&session.last_seen.time())
    }

    /// Wakes a session up, if it is one that goes on.
    fn wake(&mut self, now: Time, slot: usize) -> bool {
        let session = &self.sessions[slot];
        // Nobody else has had to do with one of which nobody else was told.
        if !matches!(session.phase, Phase::Open | Phase::Answering) || !session.told {
            return false;
        }
        self.counters.count(Counter::WakeUps);
        let unsaid = self.prefixes.contains_key(&slot);
        self.outbox.send(&probe(session, Side::Client, unsaid));
        self.outbox.send(&probe(session, Side::Server, unsaid));
        if unsaid && prefix_is_due(session) {
            self.send_prefix(now, slot);
        }
        true
    }

    /// Whether a reset may be the answer of an end that has forgotten the connection to our probe, or to what the
    /// other end said to one: it carries the acknowledgment number of what it answers, and no acknowledgment, and
    /// says nothing about the stream. One that does not stand where the other end would believe it (`valid`) is
    /// nobody's business. One that does may still be about another connection: where a client has used its port
    /// again and the end of the old session was not told, the client's answer goes to the old server. If it is
    /// meant, the next segment will provoke it again.
    pub(crate) fn provoked_by_probe(
        &self,
        now: Time,
        slot: usize,
        side: Side,
        packet: &TcpPacket<'_>,
        valid: bool,
    ) -> bool {
        if fault::on(Fault::ProbeResetPassedOn) || now >= self.wake_up.answers_until {
            return false;
        }
        let session = &self.sessions[slot];
        let acked = session.streams.sent_by(side).acked;
        let answers = session.is_inherited() && !packet.flags().contains(Flags::ACK);
        answers || !valid && packet.seq().at_or_before(acked)
    }
}

/// Whether the server may be told of the client: it is known to be there.
fn prefix_is_due(session: &Session) -> bool {
    session.record.answered || session.phase == Phase::Open
}

/// One byte that the end has received long ago. It ends below all that has been acknowledged, so it is
/// unacceptable and neither its window nor its acknowledgment is looked at. `unsaid`: there is a prefix that
/// the server may not have received; for the server, everything from there on lies ahead.
fn probe(session: &Session, end: Side, unsaid: bool) -> Segment<'static> {
    let translation = session.record.translation(end.other(), 0, 0);
    let received = match end {
        Side::Server if unsaid => session.prefix_start(),
        _ => session.streams.sent_by(end.other()).acked + translation.seq_delta,
    };
    Segment {
        tuple: session.record.leg(end).tuple().reversed(),
        seq: if fault::on(Fault::ProbeInWindow) { received } else { received - 2 },
        ack: Some(session.streams.sent_by(end).acked),
        flags: Flags(0),
        window: 0,
        options: Options::default(),
        payload: &[0],
        hop_limit: outlive_tcp::segment::DEFAULT_HOP_LIMIT,
    }
}
