//! How many people that are not known are looked up within a minute, for one client and for all: so many that a page
//! works, too few to find out by trying who is there. The same visitor about the same person counts once.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use tokio::time::Instant;

use super::Pair;

const WINDOW: Duration = Duration::from_secs(60);
/// Questions that are remembered where no limit for all keeps them few.
const MOST: usize = 100_000;

/// Where a question comes from: an address, or an IPv6 network of 64 bits, which one customer has for himself. `None`
/// is everybody whose web server does not tell.
type Client = Option<IpAddr>;

/// See the module.
#[derive(Debug)]
pub struct Rate {
    per_client: usize,
    in_all: usize,
    /// What was asked within the window, in its order.
    asked: VecDeque<(Instant, Client, Pair)>,
    clients: HashMap<Client, HashMap<Pair, Instant>>,
    /// What counts of it.
    count: usize,
}

impl Rate {
    /// 0 is no limit.
    pub fn new(per_client: u32, in_all: u32) -> Rate {
        let limit = |number: u32| if number == 0 { usize::MAX } else { usize::try_from(number).unwrap_or(usize::MAX) };
        Rate {
            per_client: limit(per_client),
            in_all: limit(in_all),
            asked: VecDeque::new(),
            clients: HashMap::new(),
            count: 0,
        }
    }

    pub fn admit(&mut self, client: Option<IpAddr>, pair: &Pair, now: Instant) -> Result<(), Duration> {
        if self.per_client == usize::MAX && self.in_all == usize::MAX {
            return Ok(());
        }
        let client = client.map(network);
        self.expire(now);
        let his = self.clients.get(&client);
        if his.is_some_and(|his| his.contains_key(pair)) {
            return Ok(());
        }
        if self.count >= self.in_all || his.is_some_and(|his| his.len() >= self.per_client) {
            let oldest = self.asked.front().map_or(now, |(at, ..)| *at);
            return Err((oldest + WINDOW).saturating_duration_since(now).max(Duration::from_secs(1)));
        }
        if self.asked.len() >= MOST {
            self.drop_oldest();
        }
        self.count += 1;
        self.asked.push_back((now, client, pair.clone()));
        self.clients.entry(client).or_default().insert(pair.clone(), now);
        Ok(())
    }

    pub fn forgive(&mut self, client: Option<IpAddr>, pair: &Pair) {
        self.remove(client.map(network), pair, None);
    }

    fn expire(&mut self, now: Instant) {
        while self.asked.front().is_some_and(|(at, ..)| now.saturating_duration_since(*at) >= WINDOW) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some((at, client, pair)) = self.asked.pop_front() {
            self.remove(client, &pair, Some(at));
        }
    }

    /// `at`: only if it was asked then, and not forgiven and asked again.
    fn remove(&mut self, client: Client, pair: &Pair, at: Option<Instant>) {
        let Some(his) = self.clients.get_mut(&client) else { return };
        if his.get(pair).is_some_and(|known| at.is_none_or(|at| at == *known)) {
            his.remove(pair);
            self.count -= 1;
        }
        if his.is_empty() {
            self.clients.remove(&client);
        }
    }
}

fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use jid::BareJid;

    use super::*;
    use crate::access::Asker;

    fn pair(number: usize) -> Pair {
        let target = BareJid::new(&format!("u{number}@example.com")).expect("a bare JID");
        Pair { target, asker: Asker::Nobody }
    }

    fn client(text: &str) -> Option<IpAddr> {
        text.parse().ok()
    }

    /// How many of a hundred people who are asked for at once are looked up.
    fn admitted(rate: &mut Rate, from: &str, now: Instant) -> usize {
        (0..100).filter(|n| rate.admit(client(from), &pair(*n), now).is_ok()).count()
    }

    #[test]
    fn each_client_and_all_together() {
        let (mut rate, now) = (Rate::new(10, 25), Instant::now());
        for (from, expected) in [
            ("192.0.2.1", 10),
            ("::ffff:192.0.2.1", 10),
            ("2001:db8::1", 10),
            ("2001:db8::ffff:1", 10),
            ("2001:db8:0:1::1", 5),
            ("", 0),
            ("192.0.2.2", 0),
        ] {
            assert_eq!(admitted(&mut rate, from, now), expected, "{from}: the same ones, and no others");
        }
        let late = now + WINDOW;
        assert_eq!(
            rate.admit(client("192.0.2.2"), &pair(0), late - Duration::from_secs(5)),
            Err(Duration::from_secs(5))
        );
        assert_eq!(admitted(&mut rate, "192.0.2.2", late), 10);
        assert_eq!((rate.count, rate.asked.len(), rate.clients.len()), (10, 10, 1));
    }

    #[test]
    fn who_is_seen_was_no_guess() {
        let (mut rate, now) = (Rate::new(10, 0), Instant::now());
        for n in 0..100 {
            assert_eq!(rate.admit(client("192.0.2.1"), &pair(n), now), Ok(()));
            rate.forgive(client("192.0.2.1"), &pair(n));
        }
        assert_eq!(admitted(&mut rate, "192.0.2.1", now), 10);
        rate.forgive(client("192.0.2.1"), &pair(3));
        let later = now + WINDOW / 2;
        assert_eq!(rate.admit(client("192.0.2.1"), &pair(3), later), Ok(()));
        rate.expire(now + WINDOW);
        assert_eq!((rate.count, rate.clients.len()), (1, 1), "what was asked again counts from then");
    }

    #[test]
    fn without_limits_nothing_is_remembered() {
        let (mut rate, now) = (Rate::new(0, 0), Instant::now());
        assert_eq!((admitted(&mut rate, "192.0.2.1", now), rate.asked.len()), (100, 0));
        let mut rate = Rate::new(0, 30);
        assert_eq!(admitted(&mut rate, "192.0.2.1", now), 30);
    }

    #[test]
    fn clients_cannot_make_it_grow() {
        let (mut rate, now) = (Rate::new(1, 0), Instant::now());
        for n in 0..u32::try_from(MOST).expect("a small number") + 5 {
            rate.admit(Some(IpAddr::from(n.to_be_bytes())), &pair(1), now).expect("each its first");
        }
        assert_eq!((rate.count, rate.asked.len(), rate.clients.len()), (MOST, MOST, MOST));
    }
}
