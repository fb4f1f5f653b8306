//! TLS that is routed by the name the client asks for, without being decrypted: each server has the
//! certificate of its own name only, so curl itself notices a wrong answer.

use std::path::{Path, PathBuf};

use outlive_lab::link::LinkKind;

use crate::{
    nginx::{Nginx, Place, curl, download, publish, upload},
    program::{command, run},
    world::{Fault, World, listener, megabytes, pool, virtual_address},
};

pub(crate) const PORT: u16 = 443;

/// What the listener says for [`PORT`]: two servers, each for its own name.
pub(crate) const ROUTES: &str = "
    [[listener.route]]
    server_name = \"one.example\"
    pool = \"tls-one\"
    [[listener.route]]
    server_name = \"*.two.example\"
    pool = \"tls-two\"";

/// The names that clients ask for, one for each server.
pub(crate) const NAMES: [&str; 2] = ["one.example", "www.two.example"];

/// The listener with its pools.
pub(crate) fn configuration(world: &World) -> String {
    // What matches no name would get the first server's certificate, and be refused by curl.
    listener(PORT, "inspect", "tls-one", ROUTES)
        + &pool("tls-one", &[&world.servers[0]], PORT, "")
        + &pool("tls-two", &[&world.servers[1]], PORT, "")
}

/// A certificate for `name` in the test's directory, and nginx's lines for a server that has it.
pub(crate) fn certify(world: &World, name: &str) -> String {
    let [certificate, key] = files(world, name);
    let mut openssl = command("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]);
    openssl.args(["-nodes", "-days", "2", "-subj"]).arg(format!("/CN={name}"));
    openssl.arg("-addext").arg(format!("subjectAltName=DNS:{name}"));
    openssl.arg("-out").arg(&certificate).arg("-keyout").arg(&key);
    run(&world.client, &mut openssl);
    format!(
        "listen {PORT} ssl; listen [::]:{PORT} ssl;
         ssl_certificate {}; ssl_certificate_key {};",
        certificate.display(),
        key.display()
    )
}

/// Where curl finds the server of that name, which must prove that it has it.
pub(crate) fn place(world: &World, name: &str, ipv6: bool) -> Place {
    let address = virtual_address(ipv6, PORT).ip();
    let address = if ipv6 { format!("[{address}]") } else { address.to_string() };
    let [certificate, _] = files(world, name);
    let options = [
        "--cacert".to_owned(),
        certificate.display().to_string(),
        "--resolve".to_owned(),
        format!("{name}:{PORT}:{address}"),
    ];
    Place { base: format!("https://{name}"), options: options.into() }
}

fn files(world: &World, name: &str) -> [PathBuf; 2] {
    ["crt", "key"].map(|ending| world.path(&format!("{name}.{ending}")))
}

fn asks(world: &World) {
    for (name, answer) in NAMES.into_iter().zip(["one", "two"]) {
        for ipv6 in [false, true] {
            let place = place(world, name, ipv6);
            let mut ask = curl();
            ask.args(&place.options).arg(format!("{}/who", place.base));
            assert_eq!(run(&world.client, &mut ask), answer, "{name}, IPv6 {ipv6}");
        }
    }
}

fn transfers(fault: Fault) {
    let links = LinkKind::Plain;
    let programs = ["nginx", "curl", "openssl"];
    let Some(mut world) = World::new(&programs, links.clone()) else { return };
    let servers = [0, 1]
        .map(|index| Nginx::start(&world, &world.servers[index], &certify(&world, NAMES[index])));
    world.start_pair(&links, &configuration(&world));
    asks(&world);

    let source = publish(&world, &servers.each_ref(), megabytes(25, 500));
    let source: &Path = &source;
    let mut activities = Vec::new();
    for (index, name) in NAMES.into_iter().enumerate() {
        for ipv6 in [false, true] {
            let label = format!("{name}-{}", if ipv6 { "v6" } else { "v4" });
            let place = place(&world, name, ipv6);
            activities.push(download(&world, &label, &place, source));
            activities.push(upload(&world, &label, &place, source, &[&servers[index]]));
        }
    }
    world.outlive(&[fault], activities);
    asks(&world);
}

#[test]
fn transfers_routed_by_name_outlive_a_kill() {
    transfers(Fault::Kill);
}

#[test]
fn transfers_routed_by_name_outlive_a_cut() {
    transfers(Fault::Cut);
}
