//! A limit on the acknowledgments that doubtful segments draw (RFC 5961, section 7): a connection
//! is not to be made a source of traffic, nor two of them a loop.
//!
//! Each connection has its own budget. One for all, as the RFC has it, tells a stranger about
//! connections that are not his.

use std::time::Duration;

use crate::time::Time;

const PERIOD: Duration = Duration::from_secs(5);
const PER_PERIOD: u8 = 10;

/// The budget of a connection.
#[derive(Clone, Debug)]
pub(super) struct ChallengeLimit {
    /// When the present period began.
    began: Option<Time>,
    sent: u8,
}

impl ChallengeLimit {
    pub(super) fn new() -> Self {
        ChallengeLimit { began: None, sent: 0 }
    }

    /// Takes one from the budget, if there is one.
    pub(super) fn take(&mut self, now: Time) -> bool {
        if self.began.is_none_or(|began| now.since(began) >= PERIOD) {
            *self = ChallengeLimit { began: Some(now), sent: 0 };
        }
        let allowed = self.sent < PER_PERIOD;
        self.sent += u8::from(allowed);
        allowed
    }
}
