//! Throughput and latency of the TLS channel between two threads of this process, over 127.0.0.1.
//!
//! `cargo run --release -p privet-net --example loopback`, or over an emulated link: `.. --example loopback -- 1gbit:1ms`

use std::error::Error;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use privet_net::{
    Channel, Deadlines, Emulated, Frame, FrameKind, Identity, TlsChannel, TlsConnector, TlsListener,
};

const KIND: FrameKind = FrameKind::new(0x100);
const FRAME: usize = 16 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    let link = std::env::args().nth(1).map(|text| Emulated::parse(&text)).transpose()?;
    let (frames, pings) = if link.is_some() { (4, 500) } else { (128, 20_000) };
    let (mut client, mut server) = connect(link)?;
    let start = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| send(&mut client, frames));
        receive(&mut server, frames);
    });
    report("one direction", frames * FRAME, start);

    let start = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| swap(&mut client, frames));
        swap(&mut server, frames);
    });
    report("both directions at once, sum", 2 * frames * FRAME, start);

    let start = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..pings {
                let frame = server.recv(64).expect("ping");
                server.send(frame).expect("pong");
            }
        });
        for _ in 0..pings {
            client.exchange(Frame::new(KIND, vec![1; 64]), 64).expect("exchange");
        }
    });
    println!("round trip of 64 bytes: {:.1} us", start.elapsed().as_secs_f64() * 1e6 / f64::from(pings));
    println!("client: {:?}", client.traffic());
    Ok(())
}

fn send(channel: &mut TlsChannel, frames: usize) {
    let payload = vec![0x5a; FRAME];
    for _ in 0..frames {
        channel.send(Frame::new(KIND, payload.clone())).expect("send");
    }
    channel.flush().expect("flush");
}

fn receive(channel: &mut TlsChannel, frames: usize) {
    for _ in 0..frames {
        channel.recv(FRAME).expect("recv");
    }
}

fn swap(channel: &mut TlsChannel, frames: usize) {
    let payload = vec![0x5a; FRAME];
    for _ in 0..frames {
        channel.exchange(Frame::new(KIND, payload.clone()), FRAME).expect("exchange");
    }
}

fn report(what: &str, bytes: usize, start: Instant) {
    let seconds = start.elapsed().as_secs_f64();
    println!("{what}: {:.2} GB/s", bytes as f64 / seconds / 1e9);
}

fn connect(link: Option<Emulated>) -> Result<(TlsChannel, TlsChannel), Box<dyn Error>> {
    let (ours, theirs) = (Identity::generate("client")?, Identity::generate("server")?);
    let listener =
        TlsListener::bind("127.0.0.1:0", &theirs, vec![ours.certificate().clone()])?.with_link(link);
    let address = listener.local_addr().to_string();
    let server =
        thread::spawn(move || listener.accept(Some(Duration::from_secs(10)), &AtomicBool::new(false)));
    let deadlines = Deadlines::default();
    let client =
        TlsConnector::connect_unless(&address, &ours, theirs.certificate(), deadlines, link, &|| false)?;
    let server = server.join().map_err(|_| "the accepting thread panicked")??;
    Ok((client, server))
}
