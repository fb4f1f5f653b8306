//! The path MTU (RFC 1191, RFC 8201), told by routers that strangers can imitate (RFC 5927), or not
//! told at all.
//!
//! A claim about a size that has got through is not believed at once: only if what it quotes is
//! not acknowledged until the retransmission timer fires (RFC 5927, section 7.2). If nobody tells, and full segments
//! die again and again, smaller ones are tried. After ten minutes larger ones are.

use std::time::Duration;

use super::negotiation::headers_len;
use crate::{
    seq::Seq,
    wire::{FourTuple, IpVersion},
};

/// How long a smaller MTU is believed (RFC 1191, section 6.3).
pub(super) const RAISE_AFTER: Duration = Duration::from_secs(600);

/// Timeouts in a row after which the path is suspected to swallow large packets; more of them if
/// packets of that size have got through before.
const SUSPICIOUS_TIMEOUTS: u32 = 3;
const SUSPICIOUS_TIMEOUTS_IF_PROVEN: u32 = 6;
/// What is tried then (RFC 4821, section 7.2).
const CAUTIOUS: u16 = 1_024;
/// Common MTUs, for routers that do not say theirs (RFC 1191, section 7).
const PLATEAUS: [u16; 9] = [32_000, 17_914, 8_166, 4_352, 2_002, 1_492, 1_006, 508, 296];

/// What is known of the path.
#[derive(Clone, Debug)]
pub(super) struct PathMtu {
    current: u16,
    ceiling: u16,
    floor: u16,
    headers: u16,
    /// The end of the first full packet sent at the current size, until it is acknowledged.
    unproven: Option<Seq>,
    /// A packet of this size was acknowledged.
    proven: u16,
    /// A claim that is not believed yet, and the sequence number quoted.
    pending: Option<(u16, Seq)>,
}

/// What becomes of an ICMP error that says a packet was too big.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Claim {
    /// It is no news, or cannot be.
    Ignored,
    /// It will be believed if the packet turns out to be lost.
    Pending,
    /// The MTU is smaller now.
    Believed,
}

impl PathMtu {
    pub(super) fn new(tuple: FourTuple, mtu: u16) -> Self {
        let floor = match tuple.version() {
            Some(IpVersion::V4) => 552,
            _ => 1_280,
        };
        PathMtu {
            current: mtu,
            ceiling: mtu,
            floor: floor.min(mtu),
            headers: headers_len(tuple),
            unproven: None,
            proven: 0,
            pending: None,
        }
    }

    /// What a former node had found out.
    pub(super) fn resume(&mut self, mtu: u16) {
        self.current = mtu.clamp(self.floor, self.ceiling);
    }

    /// Bytes of an IP packet.
    pub(super) fn mtu(&self) -> u16 {
        self.current
    }

    /// Payload bytes of a packet without options.
    pub(super) fn mss(&self) -> u16 {
        self.current.saturating_sub(self.headers).max(1)
    }

    /// Something was sent that ends at `end`; `full` says that it had a packet of full size.
    pub(super) fn note_sent(&mut self, end: Seq, full: bool) {
        if full && self.proven < self.current {
            self.unproven.get_or_insert(end);
        }
    }

    /// Everything before `una` has arrived.
    pub(super) fn note_acknowledged(&mut self, una: Seq) {
        if self.unproven.is_some_and(|end| end.at_or_before(una)) {
            self.unproven = None;
            self.proven = self.current;
        }
        self.pending = self.pending.filter(|(_, quoted)| quoted.at_or_after(una));
    }

    /// An ICMP error about a packet in flight says that `mtu` would have fitted; 0 if it does not
    /// say.
    pub(super) fn claim(&mut self, mtu: u32, quoted: Seq) -> Claim {
        let plateau = || PLATEAUS.into_iter().find(|&plateau| plateau < self.current);
        let mtu = match mtu {
            0 => plateau().unwrap_or(self.floor),
            mtu => mtu.min(u16::MAX.into()) as u16,
        };
        let mtu = mtu.max(self.floor);
        if mtu >= self.current {
            return Claim::Ignored;
        }
        if mtu < self.proven {
            self.pending = Some((mtu, quoted));
            return Claim::Pending;
        }
        self.shrink(mtu);
        Claim::Believed
    }

    /// The retransmission timer has fired for what begins at `una`, `timeouts` times in a row, and
    /// a full packet is lost. Gives whether the MTU is smaller now.
    pub(super) fn on_timeout(&mut self, una: Seq, timeouts: u32, full: bool) -> bool {
        if let Some((mtu, _)) = self.pending.filter(|(_, quoted)| *quoted == una) {
            self.shrink(mtu);
            return true;
        }
        let proven = self.proven >= self.current;
        let most = if proven { SUSPICIOUS_TIMEOUTS_IF_PROVEN } else { SUSPICIOUS_TIMEOUTS };
        if !full || timeouts < most || self.current <= self.floor {
            return false;
        }
        self.shrink(if self.current > CAUTIOUS { CAUTIOUS.max(self.floor) } else { self.floor });
        true
    }

    /// It is time to try larger packets again.
    pub(super) fn raise(&mut self) {
        self.current = self.ceiling;
        self.pending = None;
        self.unproven = None;
    }

    fn shrink(&mut self, mtu: u16) {
        self.current = mtu;
        self.proven = self.proven.min(mtu);
        self.unproven = None;
        self.pending = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::tuple;

    fn path() -> PathMtu {
        PathMtu::new(tuple("10.0.0.1:1", "10.0.0.2:2"), 1_500)
    }

    #[test]
    fn what_has_got_through_is_doubted_only_after_a_timeout() {
        let mut path = path();
        path.note_sent(Seq(100), true);
        path.note_acknowledged(Seq(100));
        assert_eq!(path.claim(1_400, Seq(100)), Claim::Pending);
        assert!(!path.on_timeout(Seq(90), 1, true));
        assert_eq!(path.mtu(), 1_500);
        assert!(path.on_timeout(Seq(100), 1, true));
        assert_eq!((path.mtu(), path.mss()), (1_400, 1_360));
    }

    #[test]
    fn an_acknowledgment_disproves_a_claim() {
        let mut path = path();
        path.note_sent(Seq(100), true);
        path.note_acknowledged(Seq(100));
        assert_eq!(path.claim(1_400, Seq(100)), Claim::Pending);
        path.note_acknowledged(Seq(200));
        assert!(!path.on_timeout(Seq(100), 1, true));
    }

    #[test]
    fn claims_have_limits() {
        let mut path = path();
        assert_eq!(path.claim(9_000, Seq(0)), Claim::Ignored);
        assert_eq!(path.claim(0, Seq(0)), Claim::Believed);
        assert_eq!(path.mtu(), 1_492);
        assert_eq!(path.claim(68, Seq(0)), Claim::Believed);
        assert_eq!(path.mtu(), 552);
        path.raise();
        assert_eq!(path.mtu(), 1_500);
    }

    #[test]
    fn a_black_hole_is_left_in_steps() {
        let mut path = path();
        assert!(!path.on_timeout(Seq(0), 2, true));
        assert!(!path.on_timeout(Seq(0), 3, false));
        assert!(path.on_timeout(Seq(0), 3, true));
        assert_eq!(path.mtu(), 1_024);
        assert!(path.on_timeout(Seq(0), 4, true));
        assert_eq!(path.mtu(), 552);
        assert!(!path.on_timeout(Seq(0), 5, true));
    }
}
