//! What the program has to know of one connection to go on with it anywhere.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use outlive_socket::{ConnectionId, Data};
use serde::{Deserialize, Serialize};

use crate::room::{Room, Word};

/// A longer line is cut.
const LINE: usize = 1_000;

/// The state of a connection: it is at the standby, as JSON, before anything follows from it.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Session {
    pub(crate) speaker: Speaker,
    /// Of each of the others: up to which position this person has heard him. What is said again after
    /// a takeover is known by that.
    heard: BTreeMap<String, u64>,
}

/// What became of the bytes that a person has sent.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Speaker {
    pub(crate) name: Option<String>,
    /// The sentence that is begun.
    line: Vec<u8>,
}

/// What follows from some bytes.
#[derive(PartialEq, Debug, Default)]
pub(crate) struct Outcome {
    /// For the others: each line, and the position behind it.
    pub(crate) said: Vec<(u64, String)>,
    /// For the person.
    pub(crate) answer: String,
}

impl Session {
    /// From what the last transaction said; a new one if there was none.
    pub(crate) fn from_state(state: &[u8]) -> Result<Self> {
        if state.is_empty() {
            return Ok(Session::default());
        }
        serde_json::from_slice(state).context("the state is not one of this program's")
    }

    pub(crate) fn to_state(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// What of these words the person has not heard yet. He has, from now on.
    pub(crate) fn hear(&mut self, words: &[Word], room: &Room) -> String {
        self.heard.retain(|id, _| id.parse().is_ok_and(|id: ConnectionId| room.is_here(id)));
        let mut news = String::new();
        for word in words {
            let heard = self.heard.entry(word.from.to_string()).or_default();
            if *heard < word.position {
                *heard = word.position;
                news.push_str(&word.text);
            }
        }
        news
    }
}

impl Speaker {
    /// Takes the next bytes, and gives what follows from the lines that are whole now.
    pub(crate) fn take(&mut self, data: &Data, who_is_here: impl Fn() -> String) -> Outcome {
        let mut outcome = Outcome::default();
        for (position, byte) in (data.position + 1..).zip(&data.bytes) {
            if *byte != b'\n' && self.line.len() < LINE {
                self.line.push(*byte);
                continue;
            }
            let line = String::from_utf8_lossy(&self.line).trim().to_owned();
            self.line.clear();
            match (&self.name, line.as_str()) {
                (_, "") => {}
                (None, name) => {
                    outcome.said.push((position, format!("* {name} comes in\n")));
                    outcome.answer += &format!("Hello, {name}. (/who tells who is here.)\n");
                    self.name = Some(line);
                }
                (Some(_), "/who") => outcome.answer += &format!("* {}\n", who_is_here()),
                (Some(name), text) => outcome.said.push((position, format!("{name}: {text}\n"))),
            }
        }
        outcome
    }

    /// What the others hear when the person has gone.
    pub(crate) fn farewell(&self, position: u64) -> Vec<(u64, String)> {
        let name = self.name.iter();
        // Behind everything that was said.
        name.map(|name| (position + 1, format!("* {name} goes\n"))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(speaker: &mut Speaker, position: u64, bytes: &'static [u8]) -> Outcome {
        speaker.take(&Data { position, bytes: bytes.into() }, || "ann".to_owned())
    }

    #[test]
    fn a_sentence_goes_on_in_the_middle() {
        let mut speaker = Speaker::default();
        let outcome = take(&mut speaker, 0, b"ann\r\nHello, w\xc3");
        assert_eq!(outcome.said, [(5, "* ann comes in\n".to_owned())]);
        let session = Session { speaker, ..Session::default() };
        // As the other node is given it.
        let mut session = Session::from_state(&session.to_state()).unwrap();
        let outcome = take(&mut session.speaker, 15, b"\xb6rld\n/who\n\n");
        assert_eq!(outcome.said, [(20, "ann: Hello, w\u{f6}rld\n".to_owned())]);
        assert_eq!(outcome.answer, "* ann\n");
    }

    #[test]
    fn a_line_has_an_end() {
        let mut speaker = Speaker { name: Some("ann".to_owned()), ..Speaker::default() };
        let outcome = take(&mut speaker, 0, &[b'x'; 3 * LINE]);
        assert_eq!(outcome.said.len(), 2);
    }

    #[test]
    fn what_is_said_again_is_heard_once() {
        let room = Room::default();
        let id = ConnectionId { process: 1, serial: 1 };
        let listener = ConnectionId { process: 1, serial: 2 };
        let (_speaks, mut hears) = (room.enter(id), room.enter(listener));
        let mut session = Session::default();
        let mut heard = String::new();
        for lines in [vec![(3, "one\n")], vec![(3, "one\n"), (6, "two\n")], vec![(6, "two\n")]] {
            let lines = lines.into_iter().map(|(at, text)| (at, text.to_owned())).collect();
            let _delivery = room.say(id, lines);
            let words: Vec<Word> = std::iter::from_fn(|| hears.try_recv().ok()).collect();
            heard += &session.hear(&words, &room);
        }
        assert_eq!(heard, "one\ntwo\n");
        room.leave(id);
        assert_eq!(session.hear(&[], &room), "");
        assert!(session.heard.is_empty(), "those who have gone are forgotten");
    }
}
