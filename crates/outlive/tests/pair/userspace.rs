//! The target is a program built on `outlive-socket`, without an agent.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{IpAddr, Shutdown, SocketAddr},
    time::Duration,
};

use outlive_socket::{
    Host, HostConfig, HostKey, MigrationConfig, Stream, StreamError, Transaction,
};
use tokio::runtime::Runtime;

use super::{PATIENCE, Stage};
use crate::common::{VIRTUAL, connect};

fn addresses(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// Answers each line with its number, and acknowledges it with that.
async fn number_lines(mut stream: Stream) -> Result<(), StreamError> {
    let (mut number, mut rest) = (0, Vec::new());
    while let Some(data) = stream.read(10_000).await? {
        let mut answer = String::new();
        for byte in &data.bytes {
            rest.push(*byte);
            if *byte == b'\n' {
                answer += &format!("{number} {}", String::from_utf8_lossy(&rest));
                (number, rest) = (number + 1, Vec::new());
            }
        }
        let done = Transaction::new().acknowledge(data.bytes.len() as u32).write(answer);
        stream.commit(done).await?;
    }
    stream.finish().await
}

#[test]
fn a_program_takes_connections_and_keeps_them_when_a_balancer_dies() {
    let Some(stage) = Stage::new() else { return };
    let runtime = Runtime::new().unwrap();
    let config = HostConfig::for_migration(MigrationConfig {
        addresses: addresses(&[VIRTUAL, "fd77::100"]),
        listen: "10.77.0.7:7410".parse().unwrap(),
        key: HostKey::load(&stage.network.path("web1.key")).unwrap(),
        nodes: addresses(&["10.77.0.1", "10.77.0.2"]),
        tunnel: addresses(&["10.79.0.7", "fd79::7"]),
        tunnel_nodes: addresses(&["10.79.0.1", "10.79.0.2", "fd79::1", "fd79::2"]),
        patience: Duration::from_secs(60),
    });
    let host = stage.target.run(|| Host::start(config)).unwrap().unwrap();
    let [mut a, b] = stage.pair();
    let mut talks = Vec::new();
    for address in addresses(&[VIRTUAL, "fd77::100"]) {
        let listener = host.listen(SocketAddr::new(address, 80)).unwrap();
        runtime.spawn(async move {
            while let Ok(stream) = listener.accept().await {
                tokio::spawn(number_lines(stream));
            }
        });
        let stream = connect(&stage.client, address, 80);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut talk = Talk { hears: BufReader::new(stream.try_clone().unwrap()), stream, said: 0 };
        // What the balancer looks at.
        for line in ["GET / HTTP/1.1\r\n", "Host: x\r\n", "\r\n"] {
            talk.stream.write_all(line.as_bytes()).unwrap();
        }
        for line in ["GET / HTTP/1.1\r\n", "Host: x\r\n", "\r\n"] {
            talk.hear(line);
        }
        talks.push(talk);
    }
    assert_eq!(host.connections(), 2, "both have come here");
    talks.iter_mut().for_each(|talk| talk.say_lines(100));
    a.kill();
    b.is("active");
    talks.iter_mut().for_each(|talk| talk.say_lines(100));
    for mut talk in talks {
        talk.stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(talk.hears.read(&mut [0]).unwrap(), 0, "and then nothing");
    }
    b.until("the balancer has forgotten them", |status| status["migrated"] == 0);
}

struct Talk {
    stream: std::net::TcpStream,
    hears: BufReader<std::net::TcpStream>,
    said: usize,
}

impl Talk {
    fn hear(&mut self, line: &str) {
        let mut heard = String::new();
        self.hears.read_line(&mut heard).unwrap();
        assert_eq!(heard, format!("{} {line}", self.said));
        self.said += 1;
    }

    fn say_lines(&mut self, count: usize) {
        for _ in 0..count {
            self.stream.write_all(b"a line\n").unwrap();
            self.hear("a line\n");
        }
    }
}
