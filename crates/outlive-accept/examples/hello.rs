//! A small HTTP server that greets clients by their address. With a path as its second argument it also serves the connections that
//! Outlive migrates to this machine.
//!
//! ```text
//! cargo run -p outlive-accept --example hello -- 0.0.0.0:8080 /run/hello.sock
//! ```

use std::{
    env,
    error::Error,
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
};

use outlive_accept::Incoming;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [address, path] = &arguments[..] else {
        return Err("usage: hello ADDRESS:PORT SOCKET".into());
    };
    let listener = TcpListener::bind(address)?;
    println!("listening on {}", listener.local_addr()?);

    // The one line that is different: without Outlive, the loop would accept from the listener.
    let incoming = Incoming::new(listener, path)?;
    println!("migrated connections arrive at {path}");
    loop {
        let (connection, client) = incoming.accept()?;
        thread::spawn(move || serve(connection, client));
    }
}

/// Answers one request after the other until the client has had enough.
fn serve(connection: TcpStream, client: SocketAddr) -> std::io::Result<()> {
    let mut reader = BufReader::new(connection.try_clone()?);
    let mut writer = connection;
    loop {
        let mut request = String::new();
        if reader.read_line(&mut request)? == 0 {
            return Ok(());
        }
        let mut header = String::new();
        while reader.read_line(&mut header)? > 2 {
            header.clear();
        }
        let body = format!("hello, {client}, you asked: {}\n", request.trim_end());
        let length = body.len();
        write!(writer, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}")?;
        println!("{client} {}", request.trim_end());
    }
}
