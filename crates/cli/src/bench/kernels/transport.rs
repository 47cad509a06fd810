//! The TLS channel between two threads of this process, over 127.0.0.1.

use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use privet::resources::cpu_seconds;
use privet_net::{
    Channel, Deadlines, Frame, FrameKind, Identity, NetError, TlsChannel, TlsConnector, TlsListener,
};

use super::Job;
use super::measure::{Effort, least_and_median};
use super::row::Row;

const KIND: FrameKind = FrameKind::new(0x100);
const FRAME: usize = 4 << 20;

pub(super) fn job() -> Job {
    Job::new("tls", |effort| {
        let (frames, pings) = if effort.quick { (8, 200) } else { (64, 5000) };
        let (mut client, mut server) = connect()?;
        let (mut one_way, mut both_ways, mut pongs) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..effort.iterations.max(3) {
            one_way.push(timed(&mut client, &mut server, |c| send(c, frames), |c| receive(c, frames))?);
            both_ways.push(timed(&mut client, &mut server, |c| swap(c, frames), |c| swap(c, frames))?);
            pongs.push(timed(&mut client, &mut server, |c| ping(c, pings), |c| pong(c, pings))?);
        }
        let bytes = (frames * FRAME) as f64;
        let rows = [("one way", one_way, bytes), ("both ways", both_ways, 2.0 * bytes)];
        let shape = |what| format!("{what}, {} MiB frames", FRAME >> 20);
        let mut rows: Vec<Row> = rows
            .into_iter()
            .flat_map(|(what, times, bytes)| {
                let (wall, cpu): (Vec<_>, Vec<_>) = times.iter().map(|t| (t.wall, t.cpu)).unzip();
                let (least, median) = least_and_median(wall);
                let gigabytes = bytes / 1e9;
                [
                    row(&shape(what), "rate", "GB/s", (gigabytes / least, gigabytes / median), effort),
                    quantity(&shape(what), "CPU", "CPU-s/GB", cpu, gigabytes, effort),
                ]
            })
            .collect();
        let micros = pongs.iter().map(|t| t.wall * 1e6).collect();
        rows.push(quantity("64 bytes", "round trip", "us", micros, pings as f64, effort));
        Ok(rows)
    })
}

fn quantity(
    shape: &str,
    quantity: &'static str,
    unit: &'static str,
    totals: Vec<f64>,
    count: f64,
    effort: &Effort,
) -> Row {
    let (least, median) = least_and_median(totals);
    row(shape, quantity, unit, (least / count, median / count), effort)
}

fn row(
    shape: &str,
    quantity: &'static str,
    unit: &'static str,
    (best, median): (f64, f64),
    effort: &Effort,
) -> Row {
    Row {
        quantity,
        threads: 2,
        achieved: Some(best),
        median: Some(median),
        repetitions: effort.iterations.max(3),
        ..Row::new("tls", shape, unit)
    }
}

/// Of both ends together.
struct Taken {
    wall: f64,
    cpu: f64,
}

/// Runs both ends at once, each on its thread.
fn timed(
    client: &mut TlsChannel,
    server: &mut TlsChannel,
    left: impl FnOnce(&mut TlsChannel) -> Result<(), NetError> + Send,
    right: impl FnOnce(&mut TlsChannel) -> Result<(), NetError>,
) -> anyhow::Result<Taken> {
    let (start, cpu) = (Instant::now(), cpu_seconds());
    thread::scope(|scope| {
        let other = scope.spawn(|| left(client));
        right(server)?;
        other.join().map_err(|_| anyhow!("the sending thread panicked"))??;
        anyhow::Ok(())
    })?;
    Ok(Taken { wall: start.elapsed().as_secs_f64(), cpu: cpu_seconds() - cpu })
}

fn send(channel: &mut TlsChannel, frames: usize) -> Result<(), NetError> {
    for _ in 0..frames {
        channel.send(Frame::new(KIND, vec![0x5a; FRAME]))?;
    }
    channel.flush()
}

fn receive(channel: &mut TlsChannel, frames: usize) -> Result<(), NetError> {
    (0..frames).try_for_each(|_| channel.recv(FRAME).map(drop))
}

fn swap(channel: &mut TlsChannel, frames: usize) -> Result<(), NetError> {
    (0..frames).try_for_each(|_| channel.exchange(Frame::new(KIND, vec![0x5a; FRAME]), FRAME).map(drop))
}

fn ping(channel: &mut TlsChannel, pings: usize) -> Result<(), NetError> {
    (0..pings).try_for_each(|_| channel.exchange(Frame::new(KIND, vec![1; 64]), 64).map(drop))
}

fn pong(channel: &mut TlsChannel, pings: usize) -> Result<(), NetError> {
    (0..pings).try_for_each(|_| {
        let frame = channel.recv(64)?;
        channel.send(frame)
    })
}

fn connect() -> anyhow::Result<(TlsChannel, TlsChannel)> {
    let (ours, theirs) = (Identity::generate("client")?, Identity::generate("server")?);
    let listener = TlsListener::bind("127.0.0.1:0", &theirs, vec![ours.certificate().clone()])?;
    let address = listener.local_addr().to_string();
    let server =
        thread::spawn(move || listener.accept(Some(Duration::from_secs(10)), &AtomicBool::new(false)));
    let client = TlsConnector::connect(&address, &ours, theirs.certificate(), Deadlines::default())?;
    let server = server.join().map_err(|_| anyhow!("the accepting thread panicked"))??;
    Ok((client, server))
}
