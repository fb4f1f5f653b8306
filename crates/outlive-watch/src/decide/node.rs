//! A node, as its answers show it.

use std::collections::VecDeque;

use outlive_node::detector::wire::{Answer, NodeState};
use outlive_proxy::config::NodeId;
use outlive_tcp::time::Time;

/// Questions that are remembered until their time is over.
const OUTSTANDING: usize = 256;

/// What is believed of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It has not been asked often enough.
    Unknown,
    /// It has answered one of the last questions.
    Answers,
    /// It has not.
    Fails,
}

/// A node, as its answers show it.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) verdict: Verdict,
    pub(super) next_question: Time,
    /// The last instant that was heard of.
    pub(super) now: Time,
    /// Numbers of questions, and until when they may be answered.
    outstanding: VecDeque<(u64, Time)>,
    misses: u32,
    last: Option<Answer>,
}

impl Node {
    pub(super) fn new(id: NodeId, now: Time) -> Self {
        Node {
            id,
            verdict: Verdict::Unknown,
            next_question: now,
            now,
            outstanding: VecDeque::new(),
            misses: 0,
            last: None,
        }
    }

    pub(super) fn asked(&mut self, number: u64, deadline: Time) {
        if self.outstanding.len() == OUTSTANDING {
            self.outstanding.pop_front();
        }
        self.outstanding.push_back((number, deadline));
    }

    /// Returns whether it is the answer to a question that may still be answered.
    pub(super) fn answered(&mut self, now: Time, answer: &Answer) -> bool {
        self.now = now;
        let Some(at) = self.outstanding.iter().position(|(number, _)| *number == answer.number)
        else {
            return false;
        };
        // Those before were overtaken, or lost: it lives, which is what they were to find out.
        self.outstanding.drain(..=at);
        self.misses = 0;
        self.last = Some(*answer);
        true
    }

    /// Nobody listens there: nothing that was asked will be answered.
    pub(super) fn refused(&mut self) {
        if self.outstanding.pop_front().is_some() {
            self.misses = self.misses.saturating_add(1);
        }
    }

    /// Counts what was not answered in time.
    pub(super) fn expire(&mut self, now: Time) {
        self.now = now;
        while self.outstanding.pop_front_if(|(_, deadline)| *deadline <= now).is_some() {
            self.misses = self.misses.saturating_add(1);
        }
    }

    /// What is believed of it now, if that is something else than before.
    pub(super) fn judge(&mut self, failures: u32) -> Option<Verdict> {
        let verdict = match (self.misses, self.last) {
            (misses, _) if misses >= failures => Verdict::Fails,
            // As long as only some are missing, nothing changes.
            (1.., _) => return None,
            (0, Some(_)) => Verdict::Answers,
            (0, None) => Verdict::Unknown,
        };
        (std::mem::replace(&mut self.verdict, verdict) != verdict).then_some(verdict)
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        self.outstanding.front().map(|(_, deadline)| *deadline)
    }

    /// Its last answer, if it still answers.
    pub(super) fn last(&self) -> Option<&Answer> {
        self.last.as_ref().filter(|_| self.verdict == Verdict::Answers)
    }

    /// What it last said of itself, if it still answers.
    pub(super) fn state(&self) -> Option<&NodeState> {
        self.last().map(|answer| &answer.state)
    }
}
