//! Tuples that were used again before the standby is known to have been told so.
//!
//! If the node fails now, the standby still holds the old session, and would translate the new one's packets
//! with the old one's numbers. So a new session with such a tuple waits for the standby in any case.

use std::collections::VecDeque;

use outlive_tcp::wire::FourTuple;

/// Reuse is rare, and confirmation quick. If there are more than this, all new sessions wait.
const LIMIT: usize = 256;

/// The tuples, with the number of the change that tells the standby.
#[derive(Debug, Default)]
pub(super) struct GivenWay {
    tuples: VecDeque<(u64, FourTuple)>,
    /// Up to this change, tuples are missing here.
    overflowed: Option<u64>,
}

impl GivenWay {
    /// The session with this tuple gave way, and was over by change `number`.
    pub(super) fn note(&mut self, number: u64, tuple: FourTuple) {
        if self.tuples.len() == LIMIT {
            self.overflowed = Some(number);
        } else {
            self.tuples.push_back((number, tuple));
        }
    }

    /// The standby knows everything up to `number`.
    pub(super) fn confirmed(&mut self, number: u64) {
        while self.tuples.pop_front_if(|(last, _)| *last <= number).is_some() {}
        self.overflowed.take_if(|last| *last <= number);
    }

    /// Whether the standby may still hold a session with this tuple.
    pub(super) fn contains(&self, tuple: &FourTuple) -> bool {
        self.overflowed.is_some() || self.tuples.iter().any(|(_, given)| given == tuple)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn tuple(port: u16) -> FourTuple {
        FourTuple {
            source: SocketAddr::from(([10, 0, 0, 9], port)).into(),
            destination: SocketAddr::from(([10, 0, 0, 1], 80)).into(),
        }
    }

    #[test]
    fn a_tuple_is_suspect_until_its_end_is_confirmed() {
        let mut given = GivenWay::default();
        given.note(7, tuple(1));
        given.note(9, tuple(2));
        given.confirmed(7);
        assert!(!given.contains(&tuple(1)) && given.contains(&tuple(2)));
        given.confirmed(9);
        assert!(!given.contains(&tuple(2)));
    }

    #[test]
    fn more_than_can_be_remembered_are_all_suspect() {
        let mut given = GivenWay::default();
        (0..=LIMIT as u16).for_each(|i| given.note(u64::from(i), tuple(i)));
        assert!(given.contains(&tuple(5_000)));
        given.confirmed(LIMIT as u64 - 1);
        assert!(given.contains(&tuple(5_000)));
        given.confirmed(LIMIT as u64);
        assert!(!given.contains(&tuple(1)));
    }
}
