//! The records that senders send, and what became of each.
//!
//! A record says whose it is, which one, and carries text that follows from both: so one that was cut, joined with
//! another one, or is somebody else's shows by itself.

use serde::Serialize;

/// Where a record begins: senders such as `logger` put something of their own before it.
const MARK: u8 = b'@';

/// Longer than a segment, so that some records are on their way in several.
const LONG: usize = 3_000;

/// Findings that are told in words.
const MOST_TOLD: usize = 5;

/// The record number `number` of sender `sender`, without a newline.
pub(crate) fn record(sender: usize, number: u64) -> String {
    let len = if number % 40 == 39 { LONG } else { (number as usize * 7 + sender * 13) % 120 };
    let text = "abcdefghijklmnopqrstuvwxyz0123456789".bytes().cycle();
    let mut record = format!("{}{sender} {number} ", char::from(MARK));
    let start = sender + number as usize % 36;
    record.extend(text.skip(start % 36).take(len).map(char::from));
    record.push('.');
    record
}

/// Whose record a line holds, and which; nothing if it is not exactly that one.
fn read(line: &[u8]) -> Option<(usize, u64)> {
    let text = std::str::from_utf8(&line[mark(line)?..]).ok()?;
    let mut fields = text[1..].splitn(3, ' ');
    let (sender, number) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    (record(sender, number) == text).then_some((sender, number))
}

/// Whose records a stream holds, by its beginning.
pub(crate) fn sender_of(beginning: &[u8]) -> Option<usize> {
    let text = &beginning[mark(beginning)? + 1..];
    let end = text.iter().position(|byte| *byte == b' ')?;
    std::str::from_utf8(&text[..end]).ok()?.parse().ok()
}

fn mark(line: &[u8]) -> Option<usize> {
    line.iter().position(|byte| *byte == MARK)
}

/// What became of all records.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Tally {
    /// Given to senders.
    pub(crate) records_sent: u64,
    /// In no log.
    pub(crate) missing: u64,
    /// There once more.
    pub(crate) duplicates: u64,
    /// Behind a later one of the same sender.
    pub(crate) out_of_order: u64,
    /// Lines that are no record that was sent.
    pub(crate) torn: u64,
    /// The first of these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) findings: Vec<String>,
}

impl Tally {
    /// Whether every record is there once, in order, whole.
    pub(crate) fn is_clean(&self) -> bool {
        [self.missing, self.duplicates, self.out_of_order, self.torn] == [0; 4]
    }

    fn tell(&mut self, finding: impl FnOnce() -> String) {
        if self.findings.len() < MOST_TOLD {
            self.findings.push(finding());
        }
    }
}

/// Reads merged records, line by line.
#[derive(Debug)]
pub(crate) struct Reader {
    sent: Vec<u64>,
    /// By sender: which have come, and the last.
    come: Vec<(Vec<bool>, Option<u64>)>,
    tally: Tally,
}

impl Reader {
    /// `sent`: how many records each of the senders was given.
    pub(crate) fn new(sent: Vec<u64>) -> Self {
        let come = sent.iter().map(|count| (vec![false; *count as usize], None)).collect();
        let tally = Tally { records_sent: sent.iter().sum(), ..Tally::default() };
        Reader { sent, come, tally }
    }

    /// The next line, without its newline.
    pub(crate) fn line(&mut self, line: &[u8]) {
        let sent = |(sender, number): &(usize, u64)| {
            self.sent.get(*sender).is_some_and(|sent| number < sent)
        };
        let Some((sender, number)) = read(line).filter(sent) else {
            self.tally.torn += 1;
            let shown = &line[..line.len().min(120)];
            return self.tally.tell(|| format!("torn: {:?}", String::from_utf8_lossy(shown)));
        };
        let (come, last) = &mut self.come[sender];
        if std::mem::replace(&mut come[number as usize], true) {
            self.tally.duplicates += 1;
            self.tally.tell(|| format!("record {number} of sender {sender} comes again"));
        } else if last.is_some_and(|last| number < last) {
            self.tally.out_of_order += 1;
            self.tally.tell(|| format!("record {number} of sender {sender} comes too late"));
        } else {
            *last = Some(number);
        }
    }

    /// What became of them, when all lines were read.
    pub(crate) fn finish(mut self) -> Tally {
        for (sender, (come, _)) in self.come.iter().enumerate() {
            let missing = || (0_u64..).zip(come).filter(|(_, come)| !**come).map(|(at, _)| at);
            self.tally.missing += missing().count() as u64;
            if let Some(first) = missing().next() {
                self.tally.tell(|| format!("record {first} of sender {sender} is in no log"));
            }
        }
        self.tally
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(sent: &[u64], lines: &[&str]) -> Tally {
        let mut reader = Reader::new(sent.to_vec());
        lines.iter().for_each(|line| reader.line(line.as_bytes()));
        reader.finish()
    }

    #[test]
    fn records_are_recognised_with_what_stands_before_them() {
        for (sender, number) in [(0, 0), (3, 39), (49, 1_234_567)] {
            let record = record(sender, number);
            assert_eq!(read(record.as_bytes()), Some((sender, number)));
            let line = format!("<13>Nov 20 16:00:00 host root: {record}");
            assert_eq!(read(line.as_bytes()), Some((sender, number)));
            assert_eq!(sender_of(line.as_bytes()), Some(sender));
            assert_eq!(read(&record.as_bytes()[..record.len() - 1]), None);
        }
        assert_eq!(sender_of(b"@17"), None, "more may follow");
    }

    #[test]
    fn what_became_of_each_is_counted() {
        let [a, b, c] = [0, 1, 2].map(|number| record(0, number));
        let other = record(1, 0);
        let clean = tally(&[3, 1], &[&a, &b, &other, &c]);
        assert!(clean.is_clean() && clean.records_sent == 4 && clean.findings.is_empty());
        let wrong = tally(&[3, 1], &[&a, &c, &b, &c, &record(1, 7), &format!("{a}{a}")]);
        let counts = [wrong.missing, wrong.duplicates, wrong.out_of_order, wrong.torn];
        assert_eq!((counts, wrong.is_clean()), ([1, 1, 1, 2], false), "{wrong:?}");
        assert_eq!(wrong.findings.len(), 5);
    }
}
