//! The state connection's bytes, before authentication and after: a stranger at either end, and somebody in the
//! middle who changes, drops, repeats and adds bytes. No message comes out that was not put in, in order; who
//! does not have the key gets nowhere.

use outlive_node::state::{Channel, ChannelEvent, Preamble, Side};
use outlive_proxy::config::NodeId;

use crate::input::Input;

const KEY: [u8; 32] = [3; 32];
const A: Preamble = Preamble { node: NodeId::A, incarnation: 11 };
const B: Preamble = Preamble { node: NodeId::B, incarnation: 22 };

/// The first byte chooses: a stranger, or two nodes with somebody between them.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    match input.below(4) {
        0 => stranger(&mut input),
        _ => between(&mut input),
    }
}

/// Whoever says something without the key.
fn stranger(input: &mut Input<'_>) {
    let side = input.one_of(&[Side::Dialer, Side::Listener, Side::Prober]);
    let own = if side == Side::Listener { A } else { B };
    let mut channel = Channel::new(side, own, KEY);
    if input.byte() & 1 == 0 {
        // So that what follows is not the preamble.
        channel.receive(&if side == Side::Listener { B } else { A }.encode());
    }
    while !input.is_empty() {
        channel.receive(input.bytes(200));
        while let Ok(Some(event)) = channel.poll() {
            assert!(
                side == Side::Prober && event == ChannelEvent::Greeted,
                "{event:?} for nothing"
            );
        }
        assert!(!channel.is_open() && !channel.has_room());
        assert!(channel.outbound().len() < 200, "a stranger is told little");
    }
}

/// One end, and what it was given and told so far.
struct End {
    channel: Channel,
    pushed: Vec<Vec<u8>>,
    heard: usize,
    broken: bool,
}

impl End {
    fn new(side: Side, own: Preamble, key: [u8; 32]) -> Self {
        End { channel: Channel::new(side, own, key), pushed: Vec::new(), heard: 0, broken: false }
    }

    /// Takes bytes; what they hold must be what `other` pushed.
    fn receive(&mut self, bytes: &[u8], other: &End) {
        self.channel.receive(bytes);
        loop {
            match self.channel.poll() {
                Ok(Some(ChannelEvent::Message(message))) => {
                    assert_eq!(Some(message), other.pushed.get(self.heard).map(Vec::as_slice));
                    self.heard += 1;
                }
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => {
                    self.broken = true;
                    break;
                }
            }
        }
    }

    fn take(&mut self, len: usize) -> Vec<u8> {
        let bytes = self.channel.outbound();
        let bytes = bytes[..len.min(bytes.len())].to_vec();
        self.channel.sent(bytes.len());
        bytes
    }
}

fn between(input: &mut Input<'_>) {
    let bits = input.byte();
    let other_key = bits & 0x30 == 0x30;
    let key = if other_key { [4; 32] } else { KEY };
    let mut ends = [End::new(Side::Dialer, B, key), End::new(Side::Listener, A, KEY)];
    let mut touched = false;
    while !input.is_empty() {
        let [dialer, listener] = &mut ends;
        let (from, to) =
            if input.byte() & 1 == 0 { (dialer, listener) } else { (listener, dialer) };
        match input.below(8) {
            0 => {
                let message = input.bytes(64);
                let pushed = from.channel.has_room()
                    && from.channel.push_with(|out| {
                        out.extend_from_slice(message);
                        true
                    }) == Ok(true);
                if pushed {
                    from.pushed.push(message.to_vec());
                }
                from.channel.seal();
            }
            1 => {
                let mut bytes = from.take(usize::from(input.byte()));
                let at = usize::from(input.byte()) % bytes.len().max(1);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= input.byte() | 1;
                    touched = true;
                }
                to.receive(&bytes, from);
            }
            2 => touched |= !from.take(usize::from(input.byte())).is_empty(),
            3 => {
                let bytes = input.bytes(100);
                touched |= !bytes.is_empty();
                to.receive(bytes, from);
            }
            4 => {
                let bytes = from.take(usize::from(input.byte()));
                touched |= !bytes.is_empty();
                to.receive(&bytes, from);
                to.receive(&bytes, from);
            }
            5 => to.receive(&from.take(usize::from(input.byte())), from),
            _ => to.receive(&from.take(usize::MAX), from),
        }
    }
    let [dialer, listener] = &mut ends;
    assert!(!(other_key && (listener.channel.is_open() || dialer.channel.is_open())), "no key");
    if touched || other_key {
        return;
    }
    // Nobody interfered: everything arrives.
    for _ in 0..4 {
        listener.receive(&dialer.take(usize::MAX), dialer);
        dialer.receive(&listener.take(usize::MAX), listener);
    }
    assert!(!dialer.broken && !listener.broken);
    assert!(dialer.channel.is_open() && listener.channel.is_open());
    assert_eq!((listener.heard, dialer.heard), (dialer.pushed.len(), listener.pushed.len()));
}
