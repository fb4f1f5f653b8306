//! How many sessions there are of each kind, found by a walk over all of them that can be done a little at a time: a
//! million sessions must not hold up the packets of any.

use crate::{
    proxy::Proxy,
    session::{Phase, Session},
    status::SessionCensus,
};

/// A walk over the sessions, and what it has found so far. Those that come and go meanwhile are counted, or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survey {
    /// The slot to go on with.
    next: usize,
    /// By what they are.
    pub(crate) census: SessionCensus,
    /// Those that are not over, by the listener's number.
    by_listener: Vec<usize>,
}

impl Survey {
    /// One that has not begun.
    pub fn new() -> Self {
        let census = SessionCensus { establishing: 0, open: 0, over: 0 };
        Survey { next: 0, census, by_listener: Vec::new() }
    }

    /// Looks at up to `slots` further places of the table. Returns whether that was all.
    pub(crate) fn walk(&mut self, proxy: &Proxy, slots: usize) -> bool {
        let all = proxy.sessions.slots();
        let end = self.next.saturating_add(slots).min(all);
        for slot in self.next..end {
            if let Some(session) = proxy.sessions.get(slot) {
                self.count(session.listener, session.phase);
            }
        }
        self.next = end;
        if end == all {
            proxy.terminated.kinds().for_each(|(listener, phase)| self.count(listener, phase));
        }
        end == all
    }

    /// Sessions that are not over, of the listener of that number.
    pub(crate) fn of_listener(&self, number: u16) -> usize {
        self.by_listener.get(usize::from(number)).copied().unwrap_or(0)
    }

    fn count(&mut self, listener: u16, phase: Phase) {
        match phase {
            Phase::Unconfirmed | Phase::Answering => self.census.establishing += 1,
            Phase::Quiet | Phase::Open => self.census.open += 1,
            Phase::TimeWait | Phase::Reset(_) => self.census.over += 1,
        }
        if phase.is_over() || listener == Session::NO_LISTENER {
            return;
        }
        let listener = usize::from(listener);
        if self.by_listener.len() <= listener {
            self.by_listener.resize(listener + 1, 0);
        }
        self.by_listener[listener] += 1;
    }
}

impl Default for Survey {
    fn default() -> Self {
        Self::new()
    }
}
