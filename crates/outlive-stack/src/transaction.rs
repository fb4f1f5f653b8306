//! What a program decides about a connection in one piece.

use bytes::Bytes;

/// A decision about a connection that has all of its effects or none: received bytes are
/// acknowledged, bytes are sent, and the program's state of the connection is another.
///
/// With a standby, it is there before any of that can be seen from outside.
///
/// ```
/// use outlive_stack::Transaction;
///
/// let booked = Transaction::new().acknowledge(64).write("booked\n").state("orders=1");
/// # let _ = booked;
/// ```
#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub struct Transaction {
    pub(crate) acknowledge: u32,
    pub(crate) acknowledge_end: bool,
    pub(crate) output: Bytes,
    pub(crate) end: bool,
    pub(crate) state: Option<Bytes>,
}

impl Transaction {
    /// One that does nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Acknowledges the next `bytes` that were read and are not acknowledged.
    #[must_use]
    pub fn acknowledge(mut self, bytes: u32) -> Self {
        self.acknowledge = bytes;
        self
    }

    /// Acknowledges the end of the stream, too, which must have been read. Until then the other end
    /// repeats it, and would say it again to another node.
    #[must_use]
    pub fn acknowledge_end(mut self) -> Self {
        self.acknowledge_end = true;
        self
    }

    /// Sends `bytes`.
    #[must_use]
    pub fn write(mut self, bytes: impl Into<Bytes>) -> Self {
        self.output = bytes.into();
        self
    }

    /// Ends the stream to the other end, behind what is written.
    #[must_use]
    pub fn end(mut self) -> Self {
        self.end = true;
        self
    }

    /// Replaces the program's state of the connection: what it is given if it goes on at the standby.
    #[must_use]
    pub fn state(mut self, state: impl Into<Bytes>) -> Self {
        self.state = Some(state.into());
        self
    }

    /// Bytes that it sends.
    pub fn output_len(&self) -> usize {
        self.output.len()
    }
}

/// Transactions that take effect together: those that came while the ones before them were being
/// confirmed. Together they are as good a place to go on from as each of them.
#[derive(Clone, Default, Debug)]
pub(crate) struct Batch {
    pub(crate) acknowledge: u32,
    pub(crate) acknowledge_end: bool,
    pub(crate) output: Vec<Bytes>,
    pub(crate) output_len: usize,
    pub(crate) end: bool,
    pub(crate) state: Option<Bytes>,
    /// The program has let the connection go: what it wrote is sent, and nothing more is wanted.
    pub(crate) release: bool,
    /// The output from this piece on belongs to the first of them that decides something, or
    /// follows it.
    pub(crate) decided: Option<usize>,
    /// The number of the last of them; zero if there is none.
    pub(crate) last: u64,
}

impl Batch {
    pub(crate) fn is_empty(&self) -> bool {
        self.last == 0
    }

    /// Adds a later one.
    pub(crate) fn append(&mut self, later: Batch) {
        if later.is_empty() {
            return;
        }
        self.acknowledge += later.acknowledge;
        self.acknowledge_end |= later.acknowledge_end;
        let decided = later.decided.map(|piece| self.output.len() + piece);
        self.decided = self.decided.or(decided);
        self.output.extend(later.output);
        self.output_len += later.output_len;
        self.end |= later.end;
        self.release |= later.release;
        self.state = later.state.or(self.state.take());
        self.last = later.last;
    }

    /// It sends, and does nothing else.
    pub(crate) fn is_output(&self) -> bool {
        self.decided.is_none() && !self.end && !self.release
    }

    /// The next one decides something.
    pub(crate) fn note_decision(&mut self) {
        self.decided.get_or_insert(self.output.len());
    }

    pub(crate) fn add(&mut self, transaction: Transaction, number: u64) {
        self.acknowledge += transaction.acknowledge;
        self.acknowledge_end |= transaction.acknowledge_end;
        if !transaction.output.is_empty() {
            self.output_len += transaction.output.len();
            self.output.push(transaction.output);
        }
        self.end |= transaction.end;
        if transaction.state.is_some() {
            self.state = transaction.state;
        }
        self.last = number;
    }
}
