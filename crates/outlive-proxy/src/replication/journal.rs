//! Changes on their way to the standby.
//!
//! Each change has a number, and the standby confirms numbers. What it has not confirmed is kept, also for a
//! while when the connection breaks: a standby that comes back soon is told only what it missed.

use std::time::Duration;

use outlive_tcp::{
    fault::{self, Fault},
    time::Time,
};

use super::change::{Change, len_of_first};

/// Bytes of changes that a connected standby has not confirmed. One that is further behind is dropped, and
/// synchronised anew when it is well.
const LIMIT: usize = 32 << 20;

/// Bytes that are kept for a standby that is away: with 10,000 short connections in a second, for two seconds.
const TAIL_LIMIT: usize = 4 << 20;

/// Capacity that is not given back when everything is confirmed.
const SPARE: usize = 1 << 20;

/// What is not urgent (a FIN was acknowledged, a session is over) waits for so long for something that is, or
/// for as much: a short connection then costs the two nodes one exchange, not three.
const PATIENCE: Duration = Duration::from_millis(10);
const ENOUGH: usize = 16 << 10;

/// Who is there for the changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
enum Audience {
    /// Nobody: changes are numbered and forgotten.
    #[default]
    None,
    /// A standby.
    Standby,
    /// One that had everything, and may come back.
    Away,
}

/// The queue of changes.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    audience: Audience,
    /// The standby has confirmed that it holds everything, or did before it went away.
    complete: bool,
    bytes: Vec<u8>,
    /// What of `bytes` has been confirmed.
    confirmed: usize,
    /// What of `bytes` has been fetched.
    fetched: usize,
    /// Number of the last change.
    last: u64,
    /// Number of the last change that was fetched.
    last_fetched: u64,
    /// Number of the last change that was confirmed.
    last_confirmed: u64,
    overflowed: bool,
    /// Something waits for the confirmation of what is here.
    urgent: bool,
    /// Since when something that is not urgent has been waiting for company.
    waits_since: Option<Time>,
    /// A change that was fetched then has not been confirmed.
    owed: Option<(u64, Time)>,
}

impl Journal {
    /// A standby listens from now on, and has nothing of what was before. Numbers go on.
    pub(crate) fn start(&mut self) {
        self.stop();
        self.audience = Audience::Standby;
    }

    /// Nobody listens any more.
    pub(crate) fn stop(&mut self) {
        *self = Journal {
            last: self.last,
            last_fetched: self.last,
            last_confirmed: self.last,
            ..Journal::default()
        };
    }

    /// The connection is gone. If the standby had everything, what it has not confirmed is kept.
    pub(crate) fn pause(&mut self) {
        if self.audience == Audience::None || !self.complete || self.overflowed {
            return self.stop();
        }
        self.audience = Audience::Away;
        self.owed = None;
        self.bound_tail();
    }

    /// The standby has confirmed that it holds everything.
    pub(crate) fn is_complete(&mut self) {
        self.complete = true;
    }

    /// Whether a standby that holds everything up to `number` can go on from there.
    pub(crate) fn can_resume(&self, number: u64) -> bool {
        let kept = self.last_confirmed..=self.last;
        self.audience == Audience::Away && kept.contains(&number)
    }

    /// The standby is back, with everything up to `number`.
    pub(crate) fn resume(&mut self, number: u64) {
        self.audience = Audience::Standby;
        self.fetched = self.bytes.len();
        self.last_fetched = self.last;
        self.advance(number);
        self.fetched = self.confirmed;
        self.last_fetched = number;
        self.urgent = true;
        self.waits_since = None;
    }

    /// Notes a change and returns its number.
    pub(crate) fn append(&mut self, change: &Change<'_>) -> u64 {
        self.last += 1;
        if self.audience != Audience::None && !self.overflowed {
            let waited_for = matches!(
                change,
                Change::Opened { .. }
                    | Change::Migrated { .. }
                    | Change::Joined { .. }
                    | Change::Ending { .. }
            );
            self.urgent |= waited_for;
            let dropped = fault::on(Fault::ChangeDropped) && self.last.is_multiple_of(3);
            if dropped { &Change::Nothing } else { change }.encode(&mut self.bytes);
            self.overflowed = self.unconfirmed() > LIMIT;
            self.bound_tail();
        }
        self.last
    }

    /// Nobody knows whether the standby that is away comes back.
    fn bound_tail(&mut self) {
        if self.audience == Audience::Away && self.unconfirmed() > TAIL_LIMIT {
            self.stop();
        }
    }

    /// Number of the last change.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// Whole changes of at most `room` bytes, appended to `out`. Returns the number of the last one, or
    /// `None` if there was none.
    pub(crate) fn fetch(&mut self, now: Time, room: usize, out: &mut Vec<u8>) -> Option<u64> {
        let pending = &self.bytes[self.fetched..];
        let mut len = 0;
        while let Some(next) = len_of_first(&pending[len..]).map(|next| len + next)
            && next <= room
        {
            len = next;
            self.last_fetched += 1;
        }
        if len == 0 {
            return None;
        }
        out.extend_from_slice(&pending[..len]);
        self.fetched += len;
        if self.fetched == self.bytes.len() {
            self.urgent = false;
            self.waits_since = None;
        }
        self.owed.get_or_insert((self.last_fetched, now));
        Some(self.last_fetched)
    }

    /// The standby holds everything up to `number`. False if it was not told so much.
    pub(crate) fn confirm(&mut self, now: Time, number: u64) -> bool {
        if number > self.last_fetched {
            return false;
        }
        self.advance(number);
        if self.owed.is_some_and(|(owed, _)| owed <= number) {
            self.owed = (number < self.last_fetched).then_some((self.last_fetched, now));
        }
        true
    }

    /// Forgets what is confirmed.
    fn advance(&mut self, number: u64) {
        while self.last_confirmed < number
            && let Some(len) = len_of_first(&self.bytes[self.confirmed..self.fetched])
        {
            self.confirmed += len;
            self.last_confirmed += 1;
        }
        if self.confirmed > self.bytes.len() / 2 {
            self.bytes.drain(..self.confirmed);
            self.fetched -= self.confirmed;
            self.confirmed = 0;
        }
        if self.bytes.is_empty() && self.bytes.capacity() > SPARE {
            self.bytes = Vec::new();
        }
    }

    /// Whether what waits, if anything does, shall be sent now.
    pub(crate) fn is_due(&mut self, now: Time) -> bool {
        if self.is_empty() {
            return false;
        }
        let since = *self.waits_since.get_or_insert(now);
        self.urgent || self.backlog() >= ENOUGH || now >= since + PATIENCE
    }

    /// When something will be due.
    pub(crate) fn deadline(&self) -> Option<Time> {
        self.waits_since.map(|since| since + PATIENCE)
    }

    /// Since when the standby has owed a confirmation.
    pub(crate) fn owed_since(&self) -> Option<Time> {
        self.owed.map(|(_, since)| since)
    }

    fn is_empty(&self) -> bool {
        self.bytes.len() == self.fetched
    }

    /// Takes a number for something that is not a change. `None` if changes have to be fetched before.
    pub(crate) fn mark(&mut self) -> Option<u64> {
        if !self.is_empty() {
            self.urgent = true;
            return None;
        }
        self.append(&Change::Nothing);
        self.fetched = self.bytes.len();
        self.last_fetched = self.last;
        Some(self.last)
    }

    /// The standby fell so far behind that changes were lost: it must be dropped.
    pub(crate) fn overflowed(&self) -> bool {
        self.overflowed
    }

    /// Bytes that wait to be fetched by a standby that is there.
    pub(crate) fn backlog(&self) -> usize {
        match self.audience {
            Audience::Standby => self.bytes.len() - self.fetched,
            _ => 0,
        }
    }

    /// Bytes that are kept.
    fn unconfirmed(&self) -> usize {
        self.bytes.len() - self.confirmed
    }
}

#[cfg(test)]
mod tests {
    use outlive_tcp::seq::Seq;
    use proptest::prelude::*;

    use super::{
        super::change::{ReceivedChange, tests::tuple},
        *,
    };
    use crate::{flows::Side, session::Phase};

    const NOW: Time = Time::from_micros(5_000_000);

    fn forgotten(port: u16) -> Change<'static> {
        Change::Forgotten { client: tuple(port) }
    }

    fn fetched(journal: &mut Journal, room: usize) -> Vec<ReceivedChange> {
        let mut bytes = Vec::new();
        journal.fetch(NOW, room, &mut bytes);
        let mut rest = bytes.as_slice();
        std::iter::from_fn(|| ReceivedChange::decode(&mut rest)).collect()
    }

    #[test]
    fn changes_come_out_as_they_went_in() {
        let mut journal = Journal::default();
        journal.append(&forgotten(1));
        assert!(journal.is_empty(), "nobody listens");
        journal.start();
        let phase = Phase::Reset(Side::Server);
        journal.append(&Change::PrefixDone { client: tuple(2) });
        journal.append(&Change::Ended { client: tuple(3), phase });
        let positions = [Seq(5), Seq(6)];
        let last = journal.append(&Change::Progress { client: tuple(4), positions });
        assert_eq!(last, 4);

        assert_eq!(fetched(&mut journal, 10), [], "no room for one");
        let first = [
            ReceivedChange::PrefixDone { client: tuple(2) },
            ReceivedChange::Ended { client: tuple(3), phase },
        ];
        assert_eq!(fetched(&mut journal, 90), first);
        let second = [ReceivedChange::Progress { client: tuple(4), positions }];
        assert_eq!(fetched(&mut journal, 90), second);
        assert_eq!(fetched(&mut journal, 90), []);
    }

    #[test]
    fn what_is_not_urgent_waits_for_company() {
        let mut journal = Journal::default();
        journal.start();
        assert!(!journal.is_due(NOW) && journal.deadline().is_none());
        journal.append(&forgotten(1));
        assert!(!journal.is_due(NOW));
        assert_eq!(journal.deadline(), Some(NOW + PATIENCE));
        assert!(journal.is_due(NOW + PATIENCE));
        assert_eq!(fetched(&mut journal, 1_000).len(), 1);
        assert!(journal.deadline().is_none());

        while !journal.is_due(NOW) {
            journal.append(&forgotten(1));
        }
        assert!(journal.backlog() >= ENOUGH);
    }

    #[test]
    fn a_standby_that_falls_behind_is_noticed_and_costs_no_memory_without_end() {
        let mut journal = Journal::default();
        journal.start();
        for i in 0..LIMIT / 39 + 2 {
            journal.append(&forgotten(1));
            // Whether it does not read, or does not confirm.
            if i % 2 == 0 {
                fetched(&mut journal, 39);
            }
        }
        assert!(journal.overflowed());
        let kept = journal.bytes.len();
        journal.append(&forgotten(1));
        assert_eq!(journal.bytes.len(), kept);
        journal.pause();
        assert!(!journal.can_resume(journal.last_confirmed), "changes were lost");
        journal.start();
        assert!(!journal.overflowed() && journal.is_empty());
    }

    #[test]
    fn what_is_confirmed_is_forgotten() {
        let mut journal = Journal::default();
        journal.start();
        for _ in 0..100_000 {
            let number = journal.append(&forgotten(1));
            assert_eq!(fetched(&mut journal, 1_000).len(), 1);
            assert!(!journal.confirm(NOW, number + 1), "never told");
            assert!(journal.confirm(NOW, number));
        }
        assert_eq!(journal.unconfirmed(), 0);
        assert!(journal.bytes.capacity() < 1_000);
    }

    #[test]
    fn it_is_known_since_when_a_confirmation_is_owed() {
        let mut journal = Journal::default();
        journal.start();
        journal.append(&forgotten(1));
        assert_eq!(journal.owed_since(), None);
        let later = |ms| NOW + Duration::from_millis(ms);
        journal.fetch(later(1), 100, &mut Vec::new());
        let second = journal.append(&forgotten(2));
        journal.fetch(later(2), 100, &mut Vec::new());
        assert_eq!(journal.owed_since(), Some(later(1)));
        journal.confirm(later(3), second - 1);
        assert_eq!(journal.owed_since(), Some(later(3)), "at least for so long");
        journal.confirm(later(4), second);
        assert_eq!(journal.owed_since(), None);
    }

    #[test]
    fn a_standby_that_was_away_goes_on_where_it_was() {
        let mut journal = Journal::default();
        journal.start();
        journal.append(&forgotten(1));
        fetched(&mut journal, 1_000);
        let complete = journal.mark().unwrap();
        journal.confirm(NOW, complete);
        journal.is_complete();
        for port in 2..=4 {
            journal.append(&forgotten(port));
        }
        fetched(&mut journal, 100);
        journal.pause();
        assert_eq!(journal.backlog(), 0, "nobody is there to be told");
        journal.append(&forgotten(5));
        assert!(!journal.can_resume(complete - 1) && !journal.can_resume(complete + 5));
        assert!((complete..=complete + 4).all(|number| journal.can_resume(number)));

        // It got the second of four.
        journal.resume(complete + 2);
        let missed = [4, 5].map(|port| ReceivedChange::Forgotten { client: tuple(port) });
        assert_eq!(fetched(&mut journal, 1_000), missed);
        assert_eq!(journal.mark(), Some(complete + 5));
        // Again, without having heard that it is complete again.
        journal.pause();
        journal.resume(complete + 4);
        assert_eq!(fetched(&mut journal, 1_000), [ReceivedChange::Nothing]);
    }

    #[test]
    fn a_standby_that_never_was_complete_or_is_away_for_long_begins_anew() {
        let mut journal = Journal::default();
        journal.start();
        let number = journal.append(&forgotten(1));
        journal.pause();
        assert!(!journal.can_resume(number) && !journal.can_resume(number - 1));

        journal.start();
        let number = journal.mark().unwrap();
        journal.is_complete();
        journal.pause();
        for _ in 0..TAIL_LIMIT / 39 {
            journal.append(&forgotten(1));
        }
        assert!(journal.can_resume(number));
        journal.append(&forgotten(1));
        assert!(!journal.can_resume(number) && !journal.can_resume(journal.last));
        assert_eq!(journal.bytes.capacity(), 0, "and costs nothing");
    }

    proptest! {
        /// Whatever happens to the connection, a standby gets each change once, in order.
        #[test]
        fn nothing_is_missed_and_nothing_told_twice(ops in prop::collection::vec((0u8..6, 1usize..400), 1..200)) {
            let mut journal = Journal::default();
            journal.start();
            let mut held = journal.mark().unwrap();
            journal.confirm(NOW, held);
            journal.is_complete();
            let mut under_way: Vec<(u64, Vec<u8>)> = Vec::new();
            let (mut connected, mut said, mut heard) = (true, Vec::new(), Vec::new());
            for (op, n) in ops {
                match op {
                    0 | 1 => {
                        said.push(n as u16);
                        journal.append(&forgotten(n as u16));
                    }
                    2 if connected => {
                        let mut bytes = Vec::new();
                        if let Some(last) = journal.fetch(NOW, n, &mut bytes) {
                            under_way.push((last, bytes));
                        }
                    }
                    3 if !under_way.is_empty() => {
                        let (last, bytes) = under_way.remove(0);
                        let mut rest = bytes.as_slice();
                        while let Some(change) = ReceivedChange::decode(&mut rest) {
                            held += 1;
                            if let ReceivedChange::Forgotten { client } = change {
                                heard.push(client.source.port);
                            }
                        }
                        prop_assert_eq!(held, last);
                        if n % 2 == 0 && connected {
                            prop_assert!(journal.confirm(NOW, held));
                        }
                    }
                    4 if connected => {
                        connected = false;
                        under_way.clear();
                        journal.pause();
                    }
                    5 if !connected => {
                        prop_assert!(journal.can_resume(held));
                        journal.resume(held);
                        connected = true;
                    }
                    _ => {}
                }
            }
            prop_assert_eq!(&said[..heard.len()], &heard[..]);
        }
    }
}
