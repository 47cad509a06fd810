//! A bad network: a TCP proxy that harms one connection at a given byte, and lets everything else pass.

#![allow(unreachable_pub, dead_code, reason = "shared by test files, each of which uses its own part")]

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::libc::linger;
use nix::sys::socket::{setsockopt, sockopt};

/// How long the proxy waits for bytes before it looks elsewhere.
const POLL: Duration = Duration::from_millis(1);

/// What happens to one direction of a connection, from a byte on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Both sides see an orderly end of the connection.
    Cut,
    /// Both sides see a reset.
    Reset,
    /// The receiver sees the end of this direction; the other one goes on.
    HalfClose,
    /// Nothing more arrives, and nothing ends.
    Stall,
    /// One byte is changed.
    Flip,
    /// Everything arrives, a few bytes at a time.
    Trickle,
}

/// A fault and its place.
#[derive(Debug, Clone, Copy)]
pub struct Harm {
    pub fault: Fault,
    /// In what the connecting side sends; otherwise in what it receives.
    pub outward: bool,
    pub at: usize,
}

#[derive(Default)]
struct Plot {
    /// For the next connections.
    next: VecDeque<Option<Harm>>,
    /// What passed on the latest connection, outward and back.
    passed: [Vec<u8>; 2],
}

/// A proxy before one listening party.
pub struct Proxy {
    pub address: String,
    plot: Arc<Mutex<Plot>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    pub fn before(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (plot, stop) = (Arc::new(Mutex::new(Plot::default())), Arc::new(AtomicBool::new(false)));
        let (own_plot, own_stop, target) = (plot.clone(), stop.clone(), target.to_owned());
        let thread = std::thread::spawn(move || {
            let mut connections = Vec::new();
            while !own_stop.load(Ordering::SeqCst) {
                let Ok((near, _)) = listener.accept() else {
                    std::thread::sleep(POLL);
                    continue;
                };
                let Ok(far) = TcpStream::connect(&target) else { continue };
                let harm = {
                    let mut plot = own_plot.lock().unwrap();
                    plot.passed = Default::default();
                    plot.next.pop_front().flatten()
                };
                let (plot, stop) = (own_plot.clone(), own_stop.clone());
                connections.push(std::thread::spawn(move || carry([near, far], harm, &plot, &stop)));
            }
            connections.into_iter().for_each(|c| c.join().unwrap());
        });
        Self { address, plot, stop, thread: Some(thread) }
    }

    /// Harms the next connection.
    pub fn harm(&self, harm: Harm) {
        self.harm_in_turn([Some(harm)]);
    }

    /// Harms the next connections.
    pub fn harm_in_turn(&self, harms: impl IntoIterator<Item = Option<Harm>>) {
        self.plot.lock().unwrap().next = harms.into_iter().collect();
    }

    /// Where TLS records of the latest connection begin, and where the last one ends, outward and back.
    pub fn records(&self) -> [Vec<usize>; 2] {
        let plot = self.plot.lock().unwrap();
        plot.passed.each_ref().map(|bytes| {
            let mut starts = vec![0];
            while let Some(header) = bytes[starts[starts.len() - 1]..].first_chunk::<5>() {
                let len = usize::from(u16::from_be_bytes([header[3], header[4]]));
                starts.push(starts[starts.len() - 1] + 5 + len);
            }
            starts
        })
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Carries bytes between the connecting side and the party until one of them ends, or something else does.
fn carry(mut sockets: [TcpStream; 2], harm: Option<Harm>, plot: &Mutex<Plot>, stop: &AtomicBool) {
    let mut counts = [0; 2];
    let mut closed = [false; 2];
    let mut buffer = vec![0; 16 << 10];
    for socket in &sockets {
        socket.set_nonblocking(false).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(POLL)).unwrap();
        socket.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
    }
    while !stop.load(Ordering::SeqCst) && closed != [true; 2] {
        for from in 0..2 {
            if closed[from] {
                continue;
            }
            let count = match sockets[from].read(&mut buffer) {
                Ok(0) => {
                    closed[from] = true;
                    let _ = sockets[1 - from].shutdown(Shutdown::Write);
                    continue;
                }
                Ok(count) => count,
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
                Err(_) => return,
            };
            let bytes = &mut buffer[..count];
            plot.lock().unwrap().passed[from].extend_from_slice(bytes);
            let start = counts[from];
            counts[from] += count;
            let harm = harm.filter(|h| h.outward == (from == 0) && counts[from] > h.at);
            let to = &mut sockets[1 - from];
            let whole = harm.map_or(count, |h| h.at.saturating_sub(start));
            let Some(harm) = harm else {
                if to.write_all(bytes).is_err() {
                    return;
                }
                continue;
            };
            let before = to.write_all(&bytes[..whole]);
            let rest = &mut bytes[whole..];
            let passed = match harm.fault {
                Fault::Cut => return,
                Fault::Reset => {
                    let at_once = linger { l_onoff: 1, l_linger: 0 };
                    sockets.iter().for_each(|s| setsockopt(s, sockopt::Linger, &at_once).unwrap());
                    return;
                }
                Fault::HalfClose => {
                    let _ = to.shutdown(Shutdown::Write);
                    Ok(())
                }
                Fault::Stall => Ok(()),
                Fault::Flip => {
                    if start <= harm.at {
                        rest[0] ^= 1;
                    }
                    to.write_all(rest)
                }
                Fault::Trickle => rest.chunks(61).try_for_each(|piece| {
                    std::thread::sleep(POLL / 10);
                    to.write_all(piece)
                }),
            };
            if before.and(passed).is_err() {
                return;
            }
        }
    }
}
