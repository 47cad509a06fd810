//! How much of it peers get: connections, time, and requests a minute.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Bounds of a server.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at a time. More wait in the system's queue.
    pub connections: usize,
    /// Requests that are worked on at a time.
    pub workers: usize,
    /// For a TLS handshake, and for each request's headers.
    pub handshake: Duration,
    /// For a request, from its headers to the last byte of its answer.
    pub request: Duration,
    /// Requests that one address may send a minute. All peers of a Unix socket together are one.
    pub per_minute: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 256,
            workers: 16,
            handshake: Duration::from_secs(10),
            request: Duration::from_secs(30),
            per_minute: 600,
        }
    }
}

impl Limits {
    /// Connections that one address may have at a time: a quarter, so that one alone cannot keep all others out.
    pub(super) fn connections_of_one(&self) -> usize {
        self.connections.div_ceil(4)
    }
}

/// An address has too many places.
#[derive(Debug)]
pub struct TooMany;

/// Who has how many places: connections, or whatever else one address should not have all of. A /64 of IPv6 is one address.
#[derive(Default)]
pub struct Crowd(Mutex<HashMap<IpAddr, usize>>);

impl Crowd {
    /// A place for this address, if it has fewer than so many.
    ///
    /// # Errors
    /// It has as many.
    pub fn enter(self: &Arc<Self>, from: IpAddr, most: usize) -> Result<Place, TooMany> {
        let from = network(from);
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(from).or_default();
        // It is never zero but for a new one: an entry goes with its last connection.
        if *count >= most {
            return Err(TooMany);
        }
        *count += 1;
        Ok(Place { crowd: self.clone(), from })
    }
}

/// A place in a [`Crowd`], given back when it is dropped.
pub struct Place {
    crowd: Arc<Crowd>,
    from: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.crowd.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut count) = counts.entry(self.from) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

/// Addresses that are remembered; more forget those that have asked least.
const MAX_ADDRESSES: usize = 4096;

/// A bucket of requests for each address, which fills up again over a minute.
pub(super) struct Rates {
    per_minute: u32,
    buckets: Mutex<HashMap<Option<IpAddr>, (f64, Instant)>>,
}

impl Rates {
    pub(super) fn new(per_minute: u32) -> Self {
        Self { per_minute, buckets: Mutex::default() }
    }

    /// Whether this address may send another request now.
    pub(super) fn take(&self, from: Option<IpAddr>, now: Instant) -> bool {
        let full = f64::from(self.per_minute);
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let left = |(left, then): &(f64, Instant)| {
            let passed = now.saturating_duration_since(*then).as_secs_f64();
            (left + passed * full / 60.0).min(full)
        };
        if buckets.len() >= MAX_ADDRESSES {
            buckets.retain(|_, bucket| left(bucket) < full);
        }
        let from = from.map(network);
        if buckets.len() >= MAX_ADDRESSES && !buckets.contains_key(&from) {
            return false;
        }
        let bucket = buckets.entry(from).or_insert((full, now));
        let left = left(bucket);
        *bucket = (if left < 1.0 { left } else { left - 1.0 }, now);
        left >= 1.0
    }
}

/// One customer has a whole /64 of IPv6. A listener for both sees addresses of IPv4 as `::ffff:192.0.2.1`.
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        v4 @ IpAddr::V4(_) => v4,
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & !u128::from(u64::MAX)).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_so_many_connections() {
        let crowd = Arc::new(Crowd::default());
        let enter = |text: &str| crowd.enter(text.parse().unwrap(), 2).ok();
        let (one, two) = (enter("192.0.2.1"), enter("192.0.2.1"));
        assert!(one.is_some() && two.is_some() && enter("192.0.2.1").is_none());
        assert!(enter("192.0.2.2").is_some(), "another address");
        drop(one);
        assert!(enter("192.0.2.1").is_some());
        let held = [enter("2001:db8::1"), enter("2001:db8::2")];
        assert!(held.iter().all(Option::is_some) && enter("2001:db8::3").is_none(), "the same network");
        let mapped = [enter("::ffff:192.0.2.3"), enter("192.0.2.3")];
        assert!(mapped.iter().all(Option::is_some) && enter("::ffff:192.0.2.3").is_none(), "the same host");
        assert!(enter("::ffff:192.0.2.4").is_some(), "another host");
        drop((two, held, mapped));
        assert!(crowd.0.lock().unwrap().is_empty());
    }

    #[test]
    fn an_address_gets_so_many_a_minute() {
        let rates = Rates::new(60);
        let start = Instant::now();
        let one: Option<IpAddr> = Some("192.0.2.1".parse().unwrap());
        assert_eq!((0..100).filter(|_| rates.take(one, start)).count(), 60);
        assert!(rates.take(Some("192.0.2.2".parse().unwrap()), start), "another address");
        assert!(!rates.take(one, start + Duration::from_millis(900)));
        assert!(rates.take(one, start + Duration::from_millis(2100)), "a second later");
        let v6 = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        assert_eq!((0..100).filter(|_| rates.take(v6("2001:db8::1"), start)).count(), 60);
        assert!(!rates.take(v6("2001:db8::2"), start), "the same network");
        for i in 0..2 * MAX_ADDRESSES as u32 {
            rates.take(Some(IpAddr::V4(i.into())), start);
        }
        assert!(rates.buckets.lock().unwrap().len() <= MAX_ADDRESSES);
    }
}
