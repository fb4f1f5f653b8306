//! What an end of a connection does, step by step.

use std::{collections::VecDeque, time::Duration};

use outlive_tcp::time::Time;

/// One thing to do. Sending goes on in the background of the steps that follow; reading always goes on, at
/// the script's [`Pace`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// So many bytes more are to be sent.
    Send(usize),
    /// Wait until so many bytes in all have been received, not counting a PROXY header.
    Await(usize),
    /// Wait until the other end has closed.
    AwaitEnd,
    /// Wait.
    Sleep(Duration),
    /// Close: a FIN after everything that is to be sent.
    Close,
    /// Go away, satisfied; the connection stays as it is.
    Leave,
}

/// How fast an end reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Everything as it comes.
    Eager,
    /// At most so many bytes, then a pause.
    Slow {
        /// Bytes at a time.
        bytes: usize,
        /// Time between two.
        every: Duration,
    },
}

/// A script, and how far it has come.
#[derive(Clone, Debug)]
pub(crate) struct Speaker {
    steps: VecDeque<Step>,
    pub(crate) pace: Pace,
    /// Bytes that are to be sent in all, as far as the script has said so.
    pub(crate) to_send: usize,
    pub(crate) sent: usize,
    /// Bytes received, with the PROXY header.
    pub(crate) received: usize,
    /// Length of the PROXY header that comes first.
    pub(crate) prefix: usize,
    pub(crate) peer_closed: bool,
    pub(crate) wants_close: bool,
    pub(crate) closed: bool,
    pub(crate) left: bool,
    sleeping: Option<Time>,
    /// Slow reading: not before.
    pub(crate) next_read: Time,
}

impl Speaker {
    pub(crate) fn new(steps: &[Step], pace: Pace, prefix: usize) -> Self {
        Speaker {
            steps: steps.iter().copied().collect(),
            pace,
            to_send: 0,
            sent: 0,
            received: 0,
            prefix,
            peer_closed: false,
            wants_close: false,
            closed: false,
            left: false,
            sleeping: None,
            next_read: Time::ZERO,
        }
    }

    /// Does what can be done without waiting.
    pub(crate) fn advance(&mut self, now: Time) {
        while let Some(step) = self.steps.front().copied() {
            let done = match step {
                Step::Send(bytes) => {
                    self.to_send += bytes;
                    true
                }
                Step::Await(bytes) => self.received >= self.prefix + bytes,
                Step::AwaitEnd => self.peer_closed,
                Step::Sleep(time) => *self.sleeping.get_or_insert(now + time) <= now,
                Step::Close => {
                    self.wants_close = true;
                    true
                }
                Step::Leave => {
                    self.left = true;
                    true
                }
            };
            if !done {
                return;
            }
            self.sleeping = None;
            self.steps.pop_front();
        }
    }

    /// How many bytes may be read now.
    pub(crate) fn may_read(&self, now: Time) -> usize {
        match self.pace {
            Pace::Eager => usize::MAX,
            Pace::Slow { bytes, .. } if now >= self.next_read => bytes,
            Pace::Slow { .. } => 0,
        }
    }

    pub(crate) fn has_read(&mut self, now: Time, bytes: usize) {
        self.received += bytes;
        if let Pace::Slow { every, .. } = self.pace
            && bytes > 0
        {
            self.next_read = now + every;
        }
    }

    /// When something happens by itself.
    pub(crate) fn deadline(&self, now: Time) -> Option<Time> {
        let reading = matches!(self.pace, Pace::Slow { .. }).then_some(self.next_read);
        [self.sleeping, reading.filter(|t| *t > now)].into_iter().flatten().min()
    }

    /// Everything has been said, and everything heard.
    pub(crate) fn is_done(&self) -> bool {
        self.steps.is_empty() && self.sent == self.to_send && self.closed && self.peer_closed
    }
}
