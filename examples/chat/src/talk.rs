//! One connection: what a person says, and what he hears.

use anyhow::Result;
use outlive_socket::{Stream, StreamError, Transaction};
use tokio::sync::mpsc;

use crate::{
    room::{Delivery, Room, Word},
    session::{Session, Speaker},
};

const GREETING: &str = "Who are you?\n";
/// Bytes taken, and words passed on, at once.
const BYTES: usize = 4_096;
const WORDS: usize = 64;

/// What was said is on its way to the others. Only when it is certain to arrive the bytes are
/// acknowledged: until then they would come again, at the other node, and be said again.
struct Saying {
    delivery: Delivery,
    /// Bytes that it was.
    count: u32,
    /// What is said to the person himself about it.
    answer: String,
    /// What follows from it for the state.
    speaker: Speaker,
}

/// Talks with one person until he goes.
pub(crate) async fn talk(
    mut stream: Stream,
    room: &Room,
    mut inbox: mpsc::Receiver<Word>,
) -> Result<()> {
    let id = stream.id();
    let mut session = Session::from_state(stream.state())?;
    if stream.state().is_empty() {
        decide(&mut stream, Transaction::new().write(GREETING), &session).await?;
    }
    if let Some(name) = &session.speaker.name {
        room.call(id, name);
    }
    let mut end = stream.position();
    let mut saying: Option<Saying> = None;
    let mut words = Vec::new();
    loop {
        tokio::select! {
            data = stream.read(BYTES), if saying.is_none() => {
                let Some(data) = data? else { break };
                end = data.position + data.bytes.len() as u64;
                let mut speaker = session.speaker.clone();
                let outcome = speaker.take(&data, || room.names());
                if let Some(name) = &speaker.name {
                    room.call(id, name);
                }
                let (count, answer) = (data.bytes.len() as u32, outcome.answer);
                let delivery = room.say(id, outcome.said);
                saying = Some(Saying { delivery, count, answer, speaker });
            }
            // Nothing is ever received: it ends when the last word is delivered.
            Some(said) = delivered(&mut saying) => {
                session.speaker = said.speaker;
                let said = Transaction::new().acknowledge(said.count).write(said.answer);
                decide(&mut stream, said, &session).await?;
            }
            count = inbox.recv_many(&mut words, WORDS) => {
                anyhow::ensure!(count > 0, "let go: too slow");
                let news = session.hear(&words, room);
                decide(&mut stream, Transaction::new().write(news), &session).await?;
                // Only now those who said it may be told that it was heard.
                words.clear();
            }
        }
    }
    // Who goes hears nothing more, and nobody waits for that.
    drop((inbox, words));
    let mut farewell = room.say(id, session.speaker.farewell(end));
    farewell.recv().await;
    Ok(stream.finish().await?)
}

/// Waits until what is being said, if anything is, will arrive at everybody.
async fn delivered(saying: &mut Option<Saying>) -> Option<Saying> {
    saying.as_mut()?.delivery.recv().await;
    saying.take()
}

/// Does what was decided, and waits until the standby knows. Who does not read what he is told is let go:
/// this does not wait for room.
async fn decide(
    stream: &mut Stream,
    transaction: Transaction,
    session: &Session,
) -> Result<(), StreamError> {
    stream.begin(transaction.state(session.to_state()))?;
    stream.flush().await
}
