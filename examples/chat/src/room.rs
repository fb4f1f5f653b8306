//! Who is there, and what is said to all of them.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use outlive_socket::ConnectionId;
use tokio::sync::mpsc;

/// Words that may wait for one person. Who falls behind farther is let go.
const INBOX: usize = 1_024;

/// Something that one person says to the others.
#[derive(Clone, Debug)]
pub(crate) struct Word {
    /// Whose connection it came on, and where in it: a name of its own, at either node.
    pub(crate) from: ConnectionId,
    pub(crate) position: u64,
    /// A whole line.
    pub(crate) text: Arc<str>,
    /// Dropped when it is certain to arrive, or never will.
    _delivery: mpsc::Sender<Infallible>,
}

/// Says when words are certain to arrive at everybody.
pub(crate) type Delivery = mpsc::Receiver<Infallible>;

#[derive(Clone, Default)]
pub(crate) struct Room(Arc<Mutex<BTreeMap<ConnectionId, Person>>>);

struct Person {
    name: Option<String>,
    inbox: mpsc::Sender<Word>,
}

impl Room {
    fn people(&self) -> MutexGuard<'_, BTreeMap<ConnectionId, Person>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody is there. What the others say comes to the inbox.
    pub(crate) fn enter(&self, id: ConnectionId) -> mpsc::Receiver<Word> {
        let (inbox, words) = mpsc::channel(INBOX);
        self.people().insert(id, Person { name: None, inbox });
        words
    }

    pub(crate) fn leave(&self, id: ConnectionId) {
        self.people().remove(&id);
    }

    pub(crate) fn is_here(&self, id: ConnectionId) -> bool {
        self.people().contains_key(&id)
    }

    pub(crate) fn call(&self, id: ConnectionId, name: &str) {
        if let Some(person) = self.people().get_mut(&id) {
            person.name = Some(name.to_owned());
        }
    }

    /// The names of those who are there.
    pub(crate) fn names(&self) -> String {
        let people = self.people();
        let names: Vec<&str> = people.values().filter_map(|p| p.name.as_deref()).collect();
        names.join(", ")
    }

    /// Says the lines, each with the position behind it, to all others.
    pub(crate) fn say(&self, from: ConnectionId, lines: Vec<(u64, String)>) -> Delivery {
        let (delivery, delivered) = mpsc::channel(1);
        let mut people = self.people();
        for (position, text) in lines {
            let word = Word { from, position, text: text.into(), _delivery: delivery.clone() };
            // Without an inbox a person is let go.
            people.retain(|id, person| *id == from || person.inbox.try_send(word.clone()).is_ok());
        }
        delivered
    }
}
