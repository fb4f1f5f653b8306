//! Links over loopback sockets, to an agent that is played by a channel.

use std::{
    io::{Read, Write},
    net::TcpListener,
    time::Instant,
};

use mio::{Events, Poll};
use outlive_proxy::config::NodeId;

use super::*;
use crate::state::{Channel, Introduction};

const KEY: [u8; 32] = [7; 32];
const OWN: Preamble = Preamble { node: NodeId::A, incarnation: 1 };
/// Against hanging only.
const PATIENCE: Duration = Duration::from_secs(30);

/// An agent: a channel, and its socket once a node has dialed.
struct Agent {
    listener: TcpListener,
    stream: Option<std::net::TcpStream>,
    channel: Channel,
    key: [u8; 32],
    heard: Vec<Vec<u8>>,
}

impl Agent {
    fn new(key: [u8; 32]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let channel = Self::channel(key);
        Agent { listener, stream: None, channel, key, heard: vec![] }
    }

    fn channel(key: [u8; 32]) -> Channel {
        Channel::new(Side::Listener, Introduction::Target { incarnation: 9 }, key)
    }

    fn turn(&mut self) {
        if let Ok((stream, _)) = self.listener.accept() {
            stream.set_nonblocking(true).unwrap();
            self.channel = Self::channel(self.key);
            self.stream = Some(stream);
        }
        let Some(stream) = &mut self.stream else { return };
        let mut buffer = [0; 4_096];
        match stream.read(&mut buffer) {
            Ok(0) => self.stream = None,
            Ok(len) => {
                self.channel.receive(&buffer[..len]);
                while let Ok(Some(event)) = self.channel.poll() {
                    if let ChannelEvent::Message(message) = event {
                        self.heard.push(message.to_vec());
                    }
                }
            }
            Err(_) => {}
        }
        self.channel.seal();
        if let Some(stream) = &mut self.stream
            && let Ok(len) = stream.write(self.channel.outbound())
        {
            self.channel.sent(len);
        }
    }
}

/// A node's links to one agent.
struct World {
    poll: Poll,
    links: TargetLinks,
    agent: Agent,
    began: Instant,
    told: Vec<String>,
}

impl World {
    fn new(key: [u8; 32]) -> Self {
        let (poll, agent) = (Poll::new().unwrap(), Agent::new(key));
        let control = agent.listener.local_addr().unwrap();
        let config = TargetConfig { name: "web1".into(), control, psk: KEY };
        let links = TargetLinks::new(vec![config], OWN, poll.registry(), 5).unwrap();
        World { poll, links, agent, began: Instant::now(), told: vec![] }
    }

    fn first(&self) -> &Link {
        self.links.links[0].as_ref().unwrap()
    }

    fn control(&self) -> SocketAddr {
        self.first().config.control
    }

    /// Turns until it `holds`.
    fn until(&mut self, holds: impl Fn(&World) -> bool) {
        let mut events = Events::with_capacity(8);
        while !holds(self) {
            assert!(self.began.elapsed() < PATIENCE, "hangs; told so far: {:?}", self.told);
            self.poll.poll(&mut events, Some(Duration::from_millis(1))).unwrap();
            events.iter().for_each(|event| self.links.handle_ready(event));
            let now = Time::from_micros(self.began.elapsed().as_micros() as u64);
            let told = &mut self.told;
            self.links.drive(now, &mut |_, event| {
                told.push(match event {
                    TargetEvent::Message(message) => String::from_utf8_lossy(message).into(),
                    event => format!("{event:?}"),
                });
                Ok(())
            });
            self.links.flush();
            self.agent.turn();
        }
    }
}

#[test]
fn messages_pass_both_ways_and_a_lost_connection_is_made_again() {
    let mut world = World::new(KEY);
    let control = world.control();
    world.links.push(control, b"too early".to_vec());
    world.until(|world| world.told == ["Connected"]);
    for _ in 0..3 {
        world.links.push(control, vec![b'x'; 30_000]);
    }
    world.until(|world| world.agent.heard.len() == 3);
    assert!(world.agent.heard.iter().all(|message| message.len() == 30_000));
    let said = world.agent.channel.push_with(|out| {
        out.extend_from_slice(b"hello");
        true
    });
    assert_eq!(said, Ok(true));
    world.until(|world| world.told.len() == 2);
    world.agent.stream = None;
    world.until(|world| world.told.len() == 4);
    assert_eq!(world.told, ["Connected", "hello", "Closed", "Connected"]);
    assert!(world.links.states().all(|(name, _, state)| name == "web1" && state == Ok(())));
}

#[test]
fn an_agent_with_another_key_is_no_agent() {
    let mut world = World::new([8; 32]);
    world.until(|world| world.first().last_failure == Some(Failure::KeyRefused));
    assert_eq!(world.told, Vec::<String>::new());
    let (_, _, state) = world.links.states().next().unwrap();
    assert_eq!(state, Err(Some(Failure::KeyRefused)));
}

#[test]
fn nobody_at_the_port_is_told_and_tried_again() {
    let mut world = World::new(KEY);
    // A port that was just free refuses.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    world.links.links[0].as_mut().unwrap().config.control = free;
    world.until(|world| world.first().last_failure == Some(Failure::Refused));
    let backoff = world.first().backoff;
    assert!(backoff > BACKOFF_MIN && world.links.deadline() < Time::NEVER);
}

#[test]
fn targets_come_and_go_and_those_that_stay_notice_nothing() {
    let mut world = World::new(KEY);
    world.until(|world| world.told == ["Connected"]);
    let first = world.first().config.clone();
    let other = |name: &str, port| TargetConfig {
        name: name.into(),
        control: ([127, 0, 0, 1], port).into(),
        psk: KEY,
    };
    assert_eq!(world.links.configure(vec![first.clone(), other("web2", 9)]), []);
    let names = |world: &World| -> Vec<String> {
        world.links.states().map(|(name, ..)| name.to_owned()).collect()
    };
    assert_eq!(names(&world), ["web1", "web2"]);

    // Its connections still live there: it goes on being reached, but is not a target any more.
    assert_eq!(world.links.configure(vec![other("web2", 9)]), []);
    assert_eq!(names(&world), ["web2"]);
    assert_eq!(world.links.retired().collect::<Vec<_>>(), [first.control]);
    world.links.push(first.control, b"still".to_vec());
    world.until(|world| world.agent.heard == [b"still".to_vec()]);
    world.links.forget(first.control);
    assert_eq!(world.links.retired().count(), 0);
    world.until(|world| world.agent.stream.is_none());
    assert_eq!(world.told, ["Connected"], "who forgets need not be told");

    // The place is another's; one with another key is dialed anew.
    let wrong = TargetConfig { psk: [9; 32], ..first.clone() };
    assert_eq!(world.links.configure(vec![other("web2", 9), wrong]), []);
    assert_eq!(world.links.links.len(), 2);
    world.until(|world| world.first().last_failure == Some(Failure::KeyRefused));
    world.links.configure(vec![first.clone()]);
    world.until(|world| world.told == ["Connected", "Connected"]);
    let renamed = TargetConfig { name: "web3".into(), ..first.clone() };
    assert_eq!(world.links.configure(vec![renamed]), [first.control]);
}
