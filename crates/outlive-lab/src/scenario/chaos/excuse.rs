//! What a standby could not know: connections that may be lost, and are counted apart.

use std::time::Duration;

use serde::Serialize;

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
    pub(super) excused: Excused,
}

/// How many connections were lost with an excuse.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct Excused {
    /// They were open when the active node was harmed whose standby did not hold everything.
    open_when_not_synchronised: u64,
    /// They were begun while both nodes were active.
    begun_while_both_active: u64,
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
        let mut verdict = Verdict { lost: Vec::new(), excused: Excused::default() };
        for lost in book.totals().lost {
            let record = client(lost.connection);
            if record.is_some_and(|it| self.was_open(it)) {
                verdict.excused.open_when_not_synchronised += 1;
            } else if record.is_some_and(|it| self.was_begun(it)) {
                verdict.excused.begun_while_both_active += 1;
            } else {
                verdict.lost.push(lost);
            }
        }
        verdict
    }

    fn was_open(&self, record: &Record) -> bool {
        self.open.iter().any(|&(from, until)| record.opened <= until && record.ended >= from)
    }

    fn was_begun(&self, record: &Record) -> bool {
        let established = record.established.unwrap_or(record.ended);
        self.begun.iter().any(|&(from, until)| record.opened <= until && established >= from)
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
            let lost: Vec<u64> = verdict.lost.iter().map(|lost| lost.connection).collect();
            let Excused { open_when_not_synchronised, begun_while_both_active } = verdict.excused;
            (lost, open_when_not_synchronised, begun_while_both_active)
        };
        assert_eq!(lost(&Excuses::default()), (vec![1, 2, 8], 0, 0));
        let mut excuses = Excuses::default();
        excuses.begun_in(Duration::from_secs(3), Duration::from_secs(5));
        assert_eq!(lost(&excuses), (vec![1, 8], 0, 1));
        excuses.open_in(Duration::from_secs(3), Duration::from_secs(5));
        assert_eq!(lost(&excuses), (vec![8], 2, 0));
    }
}
