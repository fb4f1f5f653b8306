//! What a standby could not know: connections that may be lost, and are counted apart.

use std::time::Duration;

use crate::traffic::book::{Lost, Record};
use crate::traffic::{Book, Side};

/// Spans in which connections may be lost.
#[derive(Debug, Default)]
pub(super) struct Excuses {
    /// Of those that were open then.
    open: Vec<(Duration, Duration)>,
    /// Of those that were begun then.
    begun: Vec<(Duration, Duration)>,
}

/// What was lost.
#[derive(Debug)]
pub(super) struct Verdict {
    /// Without an excuse.
    pub(super) lost: Vec<Lost>,
    /// How many with one.
    pub(super) excused: u64,
}

impl Excuses {
    /// The active node was harmed when its standby did not hold everything: whatever was open.
    pub(super) fn open_in(&mut self, from: Duration, until: Duration) {
        self.open.push((from, until));
    }

    /// Both nodes served: whatever was begun.
    pub(super) fn begun_in(&mut self, from: Duration, until: Duration) {
        self.begun.push((from, until));
    }

    /// Divides what the book holds as lost.
    pub(super) fn judge(&self, book: &Book) -> Verdict {
        let records = book.records();
        let client = |id| records.iter().find(|it| it.id == id && it.side == Side::Client);
        let (excused, lost): (Vec<Lost>, Vec<Lost>) = book
            .totals()
            .lost
            .into_iter()
            .partition(|lost| client(lost.connection).is_some_and(|it| self.covers(it)));
        Verdict { lost, excused: excused.len() as u64 }
    }

    fn covers(&self, record: &Record) -> bool {
        let overlaps =
            |&(from, until): &(Duration, Duration)| record.opened <= until && record.ended >= from;
        let begins = |&(from, until): &(Duration, Duration)| {
            record.opened <= until && record.established.unwrap_or(record.ended) >= from
        };
        self.open.iter().any(overlaps) || self.begun.iter().any(begins)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::Failure;

    fn record(opened: u64, established: u64, ended: u64) -> Record {
        let at = Duration::from_secs;
        Record {
            id: opened,
            group: "any".into(),
            side: Side::Client,
            opened: at(opened),
            established: Some(at(established)),
            ended: at(ended),
            failure: Some(Failure::Reset),
            sent: 0,
            verified: 0,
            wrong: 0,
            waits: Vec::new(),
        }
    }

    #[test]
    fn only_what_was_there_is_excused() {
        let book = Book::default();
        book.close(record(1, 1, 9));
        book.close(record(2, 4, 7));
        book.close(record(8, 8, 9));
        let lost = |excuses: &Excuses| {
            let verdict = excuses.judge(&book);
            assert_eq!(verdict.lost.len() as u64 + verdict.excused, 3);
            verdict.lost.iter().map(|lost| lost.connection).collect::<Vec<_>>()
        };
        assert_eq!(lost(&Excuses::default()), [1, 2, 8]);
        let mut excuses = Excuses::default();
        excuses.begun_in(Duration::from_secs(3), Duration::from_secs(5));
        assert_eq!(lost(&excuses), [1, 8]);
        excuses.open_in(Duration::from_secs(3), Duration::from_secs(5));
        assert_eq!(lost(&excuses), [8]);
    }
}
