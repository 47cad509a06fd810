//! Throughput and latency of the TLS channel between two threads of this process, over 127.0.0.1.
//!
//! `cargo run --release -p privet-net --example loopback`

use std::error::Error;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use privet_net::{Channel, Deadlines, Frame, FrameKind, Identity, TlsChannel, TlsConnector, TlsListener};

const KIND: FrameKind = FrameKind::new(0x100);
const FRAME: usize = 16 << 20;
const FRAMES: usize = 128;
const PINGS: u32 = 20_000;

fn main() -> Result<(), Box<dyn Error>> {
    let (mut client, mut server) = connect()?;
    let start = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| send(&mut client));
        receive(&mut server);
    });
    report("one direction", FRAMES * FRAME, start);

    let start = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| swap(&mut client));
        swap(&mut server);
    });
    report("both directions at once, sum", 2 * FRAMES * FRAME, start);

    let start = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..PINGS {
                let frame = server.recv(64).expect("ping");
                server.send(frame).expect("pong");
            }
        });
        for _ in 0..PINGS {
            client.exchange(Frame::new(KIND, vec![1; 64]), 64).expect("exchange");
        }
    });
    println!("round trip of 64 bytes: {:.1} us", start.elapsed().as_secs_f64() * 1e6 / f64::from(PINGS));
    println!("client: {:?}", client.traffic());
    Ok(())
}

fn send(channel: &mut TlsChannel) {
    let payload = vec![0x5a; FRAME];
    for _ in 0..FRAMES {
        channel.send(Frame::new(KIND, payload.clone())).expect("send");
    }
    channel.flush().expect("flush");
}

fn receive(channel: &mut TlsChannel) {
    for _ in 0..FRAMES {
        channel.recv(FRAME).expect("recv");
    }
}

fn swap(channel: &mut TlsChannel) {
    let payload = vec![0x5a; FRAME];
    for _ in 0..FRAMES {
        channel.exchange(Frame::new(KIND, payload.clone()), FRAME).expect("exchange");
    }
}

fn report(what: &str, bytes: usize, start: Instant) {
    let seconds = start.elapsed().as_secs_f64();
    println!("{what}: {:.2} GB/s", bytes as f64 / seconds / 1e9);
}

fn connect() -> Result<(TlsChannel, TlsChannel), Box<dyn Error>> {
    let (ours, theirs) = (Identity::generate("client")?, Identity::generate("server")?);
    let listener = TlsListener::bind("127.0.0.1:0", &theirs, vec![ours.certificate().clone()])?;
    let address = listener.local_addr().to_string();
    let server =
        thread::spawn(move || listener.accept(Some(Duration::from_secs(10)), &AtomicBool::new(false)));
    let client = TlsConnector::connect(&address, &ours, theirs.certificate(), Deadlines::default())?;
    let server = server.join().map_err(|_| "the accepting thread panicked")??;
    Ok((client, server))
}
