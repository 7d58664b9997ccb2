//! Which of several hosts and addresses is connected to (RFC 8305, Happy Eyeballs): they are tried in their order, IPv6
//! and IPv4 in turn, each a quarter of a second after the one before or as soon as that has failed. The first to
//! connect wins, so that a dead one costs no more than that quarter. Names are the system's to look up.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::dns::Target;
use super::steps::{Stage, Steps};
use super::{Failure, unreachable};

/// RFC 8305, 5: Connection Attempt Delay.
const ATTEMPT: Duration = Duration::from_millis(250);

/// Connects to the first that answers; says which target it is.
pub async fn reach(targets: Vec<Target>, deadline: Instant, steps: &Steps) -> Result<(TcpStream, Target), Failure> {
    let failure = unreachable("the server", "no host to try");
    let (targets, addresses, running) = (targets.into(), VecDeque::new(), JoinSet::new());
    let mut race = Race { targets, addresses, running, owed: false, failure };
    match timeout_at(deadline, race.run(steps)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(race.failure),
    }
}

struct Race {
    targets: VecDeque<Target>,
    addresses: VecDeque<(SocketAddr, Target)>,
    running: JoinSet<Event>,
    /// An attempt is due as soon as there is an address for it.
    owed: bool,
    /// What to tell if nothing succeeds.
    failure: Failure,
}

enum Event {
    Found(Target, io::Result<Vec<SocketAddr>>),
    Connected(SocketAddr, Target, io::Result<TcpStream>),
}

impl Race {
    async fn run(&mut self, steps: &Steps) -> Result<(TcpStream, Target), Failure> {
        self.begin_next();
        let mut next = Instant::now() + ATTEMPT;
        loop {
            let event = tokio::select! {
                event = self.running.join_next() => match event {
                    Some(event) => event.ok(),
                    None => return Err(self.failure.clone()),
                },
                () = sleep_until(next) => None,
            };
            match event {
                Some(Event::Connected(_, target, Ok(socket))) => return Ok((socket, target)),
                Some(Event::Connected(address, _, Err(error))) => {
                    self.failure = unreachable(&address.to_string(), &error.to_string());
                }
                Some(Event::Found(target, Ok(addresses))) => {
                    steps.passed(Stage::Resolved { host: target.host.clone(), port: target.port });
                    self.addresses.extend(in_turn(addresses).into_iter().map(|address| (address, target.clone())));
                    if !self.owed {
                        continue;
                    }
                }
                Some(Event::Found(target, Err(error))) => {
                    self.failure = Failure::NoAddress { host: target.host, reason: error.to_string() };
                }
                None => {}
            }
            self.begin_next();
            next = Instant::now() + ATTEMPT;
        }
    }

    /// The next address; else the next host is looked up.
    fn begin_next(&mut self) {
        if let Some((address, target)) = self.addresses.pop_front() {
            self.owed = false;
            self.failure = unreachable(&address.to_string(), "no answer");
            self.running.spawn(async move { Event::Connected(address, target, TcpStream::connect(address).await) });
            return;
        }
        self.owed = true;
        if let Some(target) = self.targets.pop_front() {
            let reason = "no answer to the question".to_owned();
            self.failure = Failure::NoAddress { host: target.host.clone(), reason };
            self.running.spawn(async move {
                let found = lookup_host((target.host.as_str(), target.port)).await.map(Iterator::collect);
                Event::Found(target, found)
            });
        }
    }
}

/// One family after the other, beginning with that of the first (RFC 8305, 4).
fn in_turn(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let Some(first) = addresses.first().map(SocketAddr::is_ipv6) else { return addresses };
    let (ours, others): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|address| address.is_ipv6() == first);
    let (mut ours, mut others) = (ours.into_iter(), others.into_iter());
    let mut mixed = Vec::new();
    loop {
        let pair = [ours.next(), others.next()];
        if pair == [None, None] {
            return mixed;
        }
        mixed.extend(pair.into_iter().flatten());
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use rustix::net::{AddressFamily, SocketType, bind, getsockname, listen, socket};
    use tokio::net::TcpListener;

    use super::*;
    use crate::probe::tls::Beginning;

    /// A port behind which packets are dropped: its queue is full and nobody empties it.
    async fn dead() -> (OwnedFd, Vec<TcpStream>, u16) {
        let listener = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
        bind(&listener, &SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
        listen(&listener, 0).expect("a listening socket");
        let address = SocketAddr::try_from(getsockname(&listener).expect("bound")).expect("an IP address");
        let mut queue = Vec::new();
        let full = Duration::from_millis(100);
        while let Ok(socket) = timeout_at(Instant::now() + full, TcpStream::connect(address)).await {
            queue.push(socket.expect("room in the queue"));
        }
        (listener, queue, address.port())
    }

    /// A server on a loopback address.
    async fn alive(address: &str) -> (TcpListener, u16) {
        let listener = TcpListener::bind((address, 0)).await.expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        (listener, port)
    }

    fn target(host: &str, port: u16) -> Target {
        Target { host: host.to_owned(), port, beginning: Beginning::InStream }
    }

    /// A port that refuses.
    async fn closed() -> u16 {
        alive("127.0.0.1").await.1
    }

    /// The port that is reached, after a time in milliseconds and long before the deadline.
    async fn check(targets: &[(&str, u16)], after: u64, reached: Result<u16, &str>) {
        let begun = Instant::now();
        let targets = targets.iter().map(|(host, port)| target(host, *port)).collect();
        let outcome = reach(targets, begun + LONG, &Steps::default()).await;
        let outcome = outcome.map(|(_, target)| target.port).map_err(|failure| failure.to_string());
        assert_eq!(outcome, reached.map_err(str::to_owned));
        is_between(begun, after);
    }

    const LONG: Duration = Duration::from_secs(20);

    fn is_between(begun: Instant, after: u64) {
        let elapsed = begun.elapsed();
        assert!(Duration::from_millis(after) <= elapsed && elapsed < LONG / 4, "after {elapsed:?}");
    }

    #[tokio::test]
    async fn a_dead_one_costs_a_quarter_of_a_second_and_a_closed_one_nothing() {
        let (_listener, _queue, dead) = dead().await;
        let (_v4, v4) = alive("127.0.0.1").await;
        let (_v6, v6) = alive("::1").await;
        let closed = closed().await;
        check(&[("127.0.0.1", v4), ("::1", v6)], 0, Ok(v4)).await;
        check(&[("::1", v6), ("127.0.0.1", v4)], 0, Ok(v6)).await;
        check(&[("127.0.0.1", closed), ("::1", v6)], 0, Ok(v6)).await;
        check(&[("127.0.0.1", dead), ("::1", v6)], 250, Ok(v6)).await;
        check(&[("127.0.0.1", dead), ("127.0.0.1", dead), ("127.0.0.1", v4)], 500, Ok(v4)).await;
        let refused = format!("cannot connect to 127.0.0.1:{closed}: Connection refused (os error 111)");
        check(&[("127.0.0.1", closed)], 0, Err(&refused)).await;
        check(&[], 0, Err("cannot connect to the server: no host to try")).await;
    }

    #[tokio::test]
    async fn where_nobody_answers_the_deadline_ends_it() {
        let (_listener, _queue, dead) = dead().await;
        let (begun, targets) = (Instant::now(), vec![target("127.0.0.1", dead)]);
        let outcome = reach(targets, begun + Duration::from_millis(300), &Steps::default()).await;
        let nobody = format!("cannot connect to 127.0.0.1:{dead}: no answer");
        assert_eq!(outcome.map(drop).map_err(|failure| failure.to_string()), Err(nobody));
        is_between(begun, 300);
    }

    #[tokio::test]
    async fn the_addresses_of_a_host_are_raced_too() {
        let (_listener, _queue, dead) = dead().await;
        let (_alive, alive) = alive("::1").await;
        let address = |ip: &str, port| (SocketAddr::new(ip.parse().expect("an address"), port), target("host", port));
        let addresses = [address("127.0.0.1", dead), address("::1", alive)].into();
        let (targets, running) = (VecDeque::new(), JoinSet::new());
        let mut race = Race { targets, addresses, running, owed: false, failure: Failure::Silent };
        let begun = Instant::now();
        let reached = race.run(&Steps::default()).await.map(|(_, target)| target.port);
        assert_eq!(reached, Ok(alive));
        is_between(begun, 250);
    }

    #[test]
    fn families_take_turns() {
        let read = |list: &str| list.split_whitespace().map(|a| a.parse().expect("an address")).collect::<Vec<_>>();
        for (found, tried) in [
            ("", ""),
            ("[::1]:1 [::2]:1 [::3]:1 1.1.1.1:1", "[::1]:1 1.1.1.1:1 [::2]:1 [::3]:1"),
            ("1.1.1.1:1 [::1]:1 1.1.1.2:1 1.1.1.3:1 [::2]:1", "1.1.1.1:1 [::1]:1 1.1.1.2:1 [::2]:1 1.1.1.3:1"),
            ("1.1.1.1:1 1.1.1.2:1", "1.1.1.1:1 1.1.1.2:1"),
        ] {
            assert_eq!(in_turn(read(found)), read(tried), "{found}");
        }
    }
}
