//! A program whose output follows from its state: the standby holds none of it.

use std::time::Duration;

use outlive_stack::{Chunk, Closed, CommitError, Event, Standing, Transaction};
use outlive_tcp::{
    endpoint::{Config, End},
    time::Time,
};

use crate::world::{Node, World, local};

const MINUTES: Duration = Duration::from_secs(600);
/// Answers are this long for each unit of the request.
const UNIT: usize = 700;
/// What comes at the end: several segments.
const FAREWELL: &[u8] = &[b'.'; 4_000];
/// Bytes written at once.
const PIECE: usize = 1_100;

/// A connection of the program. Each byte that comes asks for so many units of output; the state is
/// all bytes that came, and the output follows from it from its first byte on.
pub(crate) struct Talk {
    requests: Vec<u8>,
    written: usize,
    output: Vec<u8>,
    /// The program is not what it was.
    other: bool,
}

/// What is sent for the request with that number.
fn answer(number: usize, units: u8, other: bool) -> impl Iterator<Item = u8> {
    let len = usize::from(units) * UNIT;
    (0..len).map(move |i| (i * 7 + number * 31 + i / 251) as u8 ^ u8::from(other))
}

/// Everything that is sent for these requests.
fn output(requests: &[u8]) -> Vec<u8> {
    requests.iter().enumerate().flat_map(|(number, units)| answer(number, *units, false)).collect()
}

/// The program: writes what is missing, and only then looks at the next request.
fn work(node: &mut Node, now: Time) -> bool {
    serve(node, now, false)
}

/// One that has less to say after a takeover, and then something else.
fn other_work(node: &mut Node, now: Time) -> bool {
    serve(node, now, true)
}

/// What it sends if it goes on when the first requests were in its state.
fn other_output(requests: &[u8], first: usize) -> Vec<u8> {
    let mut all = less(&requests[..first]);
    for (number, units) in requests.iter().enumerate().skip(first) {
        all.extend(answer(number, *units, true));
    }
    all.extend(FAREWELL);
    all
}

fn less(requests: &[u8]) -> Vec<u8> {
    let mut output = output(requests);
    output.truncate(output.len().saturating_sub(300));
    output
}

fn serve(node: &mut Node, now: Time, other: bool) -> bool {
    while let Some(accepted) = node.stack.accept(now, local()) {
        if !accepted.regenerates_output {
            // A connection of which the standby has only this much has sent nothing.
            assert_eq!(accepted.written, 0);
            node.stack.regenerate_output(now, accepted.id).unwrap();
        }
        node.program.resumed += usize::from(accepted.resumed);
        let (requests, written) = (accepted.state.to_vec(), accepted.written as usize);
        let output = if other { less(&requests) } else { output(&requests) };
        if written > output.len() {
            assert!(other, "it is told a position that it knows");
            node.stack.abort(now, accepted.id);
            continue;
        }
        node.program.talks.insert(accepted.id, Talk { requests, written, output, other });
    }
    for id in node.program.talks.keys().copied().collect::<Vec<_>>() {
        let mut talk = node.program.talks.remove(&id).unwrap();
        match go_on(node, now, id, &mut talk) {
            Ok(true) => {
                node.program.talks.insert(id, talk);
            }
            Ok(false) => node.stack.close(now, id),
            Err(closed) => {
                node.program.closed.push(closed);
                node.stack.close(now, id);
            }
        }
    }
    false
}

/// Gives whether the talk goes on.
fn go_on(
    node: &mut Node,
    now: Time,
    id: outlive_stack::ConnectionId,
    talk: &mut Talk,
) -> Result<bool, Closed> {
    let closed = |error| match error {
        CommitError::Closed(closed) => closed,
        error => panic!("{error:?}"),
    };
    loop {
        let rest = talk.output.get(talk.written..).unwrap_or_default();
        if !rest.is_empty() {
            let room = node.stack.room(id)?;
            let piece = rest.len().min(PIECE).min(room);
            if piece == 0 {
                return Ok(true);
            }
            let transaction = Transaction::new().write(rest[..piece].to_vec());
            node.stack.commit(now, id, transaction).map_err(closed)?;
            talk.written += piece;
            continue;
        }
        match node.stack.read(now, id, 1)? {
            Chunk::Data { position, bytes } => {
                assert_eq!(position, talk.requests.len() as u64);
                let begin = talk.output.len();
                talk.output.extend(answer(talk.requests.len(), bytes[0], talk.other));
                talk.requests.extend_from_slice(&bytes);
                let transaction = Transaction::new().acknowledge(1).state(talk.requests.clone());
                // The beginning of the answer goes with the decision.
                let first = (talk.output.len() - begin).min(PIECE / 2).min(node.stack.room(id)?);
                let first = &talk.output[begin..begin + first];
                talk.written += first.len();
                let transaction = transaction.write(first.to_vec());
                node.stack.commit(now, id, transaction).map_err(closed)?;
            }
            Chunk::End { .. } => {
                if node.stack.room(id)? < FAREWELL.len() {
                    return Ok(true);
                }
                let end = Transaction::new().acknowledge_end().write(FAREWELL).end();
                node.stack.commit(now, id, end).map_err(closed)?;
                return Ok(false);
            }
            Chunk::Blocked => return Ok(true),
        }
    }
}

fn protected(requests: &[&[u8]], loss: u32) -> World {
    let mut world = World::pair(|config| {
        config.tcp = Config { send_buffer: 5_000, ..Config::default() };
    });
    world.work = work;
    assert!(world.run(Duration::from_secs(5), World::is_protected), "{:?}", world.log_events);
    world.loss = loss;
    (world.outputs, world.died) = (0, false);
    for requests in requests {
        world.connect(requests.to_vec());
    }
    world
}

fn assert_complete(world: &World, requests: &[&[u8]]) {
    for (client, requests) in world.clients.iter().zip(requests) {
        let what = format!("died at {:?}, {:?}", world.die_at, world.log_events);
        assert!(client.finished, "{what}: {:?} {:?}", client.end, client.conn);
        let whole = [output(requests), FAREWELL.into()].concat();
        assert!(client.got == whole, "{what}: {} bytes", client.got.len());
    }
    for node in world.nodes.iter().flatten() {
        let diverged = node.program.closed.contains(&Closed::OutputDiverged);
        assert!(!diverged, "died at {:?}: {:?}", world.die_at, world.log_events);
    }
}

fn dies_at(output: u64, requests: &[&[u8]], loss: u32) -> bool {
    let mut world = protected(requests, loss);
    world.die_at = Some(output);
    assert!(world.run(MINUTES, World::all_finished), "at {output}: {:?}", world.log_events);
    // What is repeated of the end.
    world.run(Duration::from_secs(5), |_| false);
    assert_complete(&world, requests);
    world.died
}

const REQUESTS: [&[u8]; 3] = [&[3, 1, 30], &[], &[0, 60]];

#[test]
fn output_is_the_same_whenever_the_node_dies() {
    let deaths = (1..).take_while(|output| dies_at(*output, &REQUESTS, 0)).count();
    assert!(deaths > 50, "only {deaths} deaths");
}

#[test]
fn so_it_is_on_a_bad_network() {
    let deaths = (1..).step_by(3).take_while(|output| dies_at(*output, &REQUESTS, 5)).count();
    assert!(deaths > 20, "only {deaths} deaths");
}

#[test]
fn the_standby_is_told_nothing_for_output() {
    let requests: [&[u8]; 1] = [&[250; 12]];
    let mut world = protected(&requests, 0);
    assert!(world.run(MINUTES, World::all_finished));
    assert_complete(&world, &requests);
    let counters = world.nodes[0].as_ref().unwrap().stack.counters();
    assert!(world.clients[0].got.len() > 2_000_000);
    // The connection, each request, its end; a few of them together.
    assert!(counters.records <= 20, "{counters:?}");
}

#[test]
fn it_goes_on_from_node_to_node() {
    let requests: [&[u8]; 2] = [&[200; 20], &[100, 250, 250]];
    let mut world = protected(&requests, 0);
    let mut deaths = 0;
    while !world.all_finished() && deaths < 10 {
        world.run(Duration::from_millis(150), World::all_finished);
        if world.all_finished() || !world.is_protected() {
            continue;
        }
        let active = world.owner;
        world.kill(active);
        deaths += 1;
        world.run(Duration::from_secs(2), |world| world.owner != active);
        world.start(active);
        world.run(Duration::from_secs(5), World::is_protected);
    }
    assert!(world.run(MINUTES, World::all_finished), "{:?}", world.log_events);
    assert_complete(&world, &requests);
    assert!(deaths > 2, "only {deaths} deaths");
}

/// The client has bytes that the program does not write again: whatever it has of the old output, it
/// gets nothing of the new one behind it.
#[test]
fn another_output_is_never_spliced_to_the_old_one() {
    let requests: [&[u8]; 1] = [&[20, 5, 7, 9, 3, 14, 8]];
    let before = [output(requests[0]), FAREWELL.into()].concat();
    let after: Vec<_> = (0..=7).map(|first| other_output(requests[0], first)).collect();
    let mut diverged = 0;
    for output in 1.. {
        let mut world = protected(&requests, 0);
        world.die_at = Some(output);
        world.run(MINUTES, |world| world.died || world.all_finished());
        if !world.died {
            break;
        }
        world.work = other_work;
        assert!(world.run(MINUTES, World::all_finished), "{output}: {:?}", world.log_events);
        let client = &world.clients[0];
        let had = &client.got;
        let one = before.starts_with(had) || after.iter().any(|after| after.starts_with(had));
        assert!(one, "died at {output}: a splice");
        assert!(client.finished || client.end == Some(End::ResetByPeer));
        let program = &world.nodes[1].as_ref().unwrap().program;
        diverged += usize::from(program.closed.contains(&Closed::OutputDiverged));
    }
    assert!(diverged > 3, "only {diverged} times");
}

#[test]
fn what_the_other_end_has_is_told() {
    let mut world = protected(&[&[10]], 0);
    world.idle = true;
    assert!(world.run(MINUTES, |world| world.clients[0].conn.unacknowledged() > 0));
    world.run(Duration::from_millis(20), |_| false);
    let now = world.now;
    let stack = &mut world.nodes[0].as_mut().unwrap().stack;
    let id = stack.accept(now, local()).unwrap().id;
    stack.regenerate_output(now, id).unwrap();
    stack.commit(now, id, Transaction::new().write("0123456789")).unwrap();
    assert_eq!(stack.delivered(id), Ok(0));
    world.drive_node(0);
    world.run(Duration::from_millis(100), |_| false);
    let stack = &mut world.nodes[0].as_mut().unwrap().stack;
    assert_eq!(stack.delivered(id), Ok(10));
    assert_eq!(stack.standing(), Standing::Protected);
    assert!(!std::iter::from_fn(|| stack.poll_event()).any(|e| e == Event::Closed(id)));
    assert_eq!(stack.regenerate_output(now, id), Ok(()), "again is nothing");
}
