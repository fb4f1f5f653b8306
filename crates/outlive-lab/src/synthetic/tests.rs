use super::*;
use crate::attack::RST;

/// Carries everything between both sides, but for what `loses` says.
fn run(clients: &mut Clients, servers: &mut Servers, loses: impl Fn(u64) -> bool) {
    let mut now = Duration::ZERO;
    let mut sent = 0;
    clients.ask_all();
    while !clients.are_served() {
        now += Duration::from_millis(1);
        let mut arriving: Vec<Segment> = std::iter::from_fn(|| clients.poll(now)).collect();
        while let Some(segment) = arriving.pop() {
            sent += 1;
            if loses(sent) {
                continue;
            }
            let Some(answer) = servers.receive(&segment) else { continue };
            sent += 1;
            if !loses(sent) {
                arriving.extend(clients.receive(&answer, now));
            }
        }
        assert!(now < Duration::from_secs(600), "{:?}", clients.tally());
    }
}

fn targets() -> Vec<std::net::SocketAddr> {
    vec!["10.77.0.100:7000".parse().unwrap(), "[fd77::100]:7000".parse().unwrap()]
}

#[test]
fn every_session_is_opened_and_served_again_and_again() {
    let (mut clients, mut servers) = (Clients::new(1500, targets(), 7), Servers::new(7));
    for round in 1..=3 {
        run(&mut clients, &mut servers, |_| false);
        let tally = clients.tally();
        assert_eq!((tally.established, tally.answers), (1500, 1500 * round));
        assert_eq!((tally.wrong, tally.reset, tally.repeated), (0, 0, 0));
    }
    assert_eq!(servers.sessions(), 1500);
}

#[test]
fn what_is_lost_is_said_again() {
    let (mut clients, mut servers) = (Clients::new(300, targets(), 1), Servers::new(1));
    run(&mut clients, &mut servers, |nth| nth % 3 == 0);
    run(&mut clients, &mut servers, |nth| nth % 4 == 0);
    let tally = clients.tally();
    assert_eq!((tally.answers, tally.verified, tally.wrong), (600, 600 * 16, 0));
    assert!(tally.repeated > 0);
}

#[test]
fn a_client_that_is_refused_tries_again() {
    let (mut clients, mut servers) = (Clients::new(1, targets(), 1), Servers::new(1));
    clients.ask_all();
    let syn = clients.poll(Duration::ZERO).unwrap();
    let refused = Segment {
        flags: RST | ACK,
        seq: 0,
        ack: syn.seq.wrapping_add(1),
        from: syn.to,
        to: syn.from,
        payload: Vec::new(),
    };
    assert_eq!(clients.receive(&refused, Duration::ZERO), None);
    assert_eq!((clients.tally().refused, clients.tally().reset), (1, 0));
    run(&mut clients, &mut servers, |_| false);
    assert_eq!((clients.tally().established, clients.tally().answers), (1, 1));
}

#[test]
fn a_probe_is_answered_and_an_answer_is_compared() {
    let (mut clients, mut servers) = (Clients::new(1, targets(), 1), Servers::new(1));
    clients.ask_all();
    let syn = clients.poll(Duration::ZERO).unwrap();
    let syn_ack = servers.receive(&syn).unwrap();
    let question = clients.receive(&syn_ack, Duration::ZERO).unwrap();
    let answer = servers.receive(&question).unwrap();

    // One byte below what has come: both ends say what they have.
    let probe = Segment { seq: question.seq.wrapping_sub(1), payload: vec![0], ..question.clone() };
    let said = servers.receive(&probe).unwrap();
    assert_eq!(said.ack, question.seq.wrapping_add(QUESTION_LEN as u32));
    assert!(said.payload.is_empty());

    let mut other = answer;
    other.payload[3] ^= 1;
    clients.receive(&other, Duration::ZERO);
    assert_eq!(clients.tally().wrong, 1);

    let reset = Segment { flags: crate::attack::RST, payload: vec![], ..other };
    clients.receive(&reset, Duration::ZERO);
    assert_eq!(clients.tally().reset, 1);
}
