//! How many people that are not known are looked up within a minute, for one client and for all: so many that a page
//! works, too few to find out by trying who is there. The same visitor about the same person counts once, and for all
//! together a person counts once, however many ask for him. The rules work on a list of questions, and it is the same to
//! them where that lives: in memory, or in the file of a ledger.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use ring::digest;

use super::Pair;
use super::ledger::Ledger;
use crate::access::Asker;

const WINDOW: Duration = Duration::from_secs(60);
pub const WINDOW_MS: u64 = 60_000;
/// Questions that are remembered where no limit for all keeps them few.
pub const MOST: usize = 100_000;
/// Questions that no longer count stay in the list until there are more of them than of the others, and so many more:
/// to take each out at once would move all that stand behind it.
const SLACK: usize = 64;

/// See the module.
#[derive(Debug)]
pub struct Rate {
    limits: Limits,
    /// As this process knew them last, in their order.
    asked: Vec<Question>,
    ledger: Ledger,
}

#[derive(Clone, Copy, Debug)]
struct Limits {
    per_client: usize,
    in_all: usize,
}

/// That somebody was asked about, as far as the rules need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// Milliseconds since 1970.
    pub at_ms: u64,
    pub client: Digest,
    pub target: Digest,
    pub pair: Digest,
}

/// The head of a SHA-256 without a key. A key would have to lie beside the file, and whoever reads what only our user may
/// read has the configuration and mostly the web server's log too, which says more. Nobody gains from two questions
/// with one digest: the second is free, and to find such a pair among the addresses of people takes some 2^32 of them.
pub type Digest = u64;

impl Rate {
    /// 0 is no limit; where there is none, nothing is remembered and no file is touched.
    pub fn new(per_client: u32, in_all: u32, ledger: Ledger) -> Rate {
        let limit = |number: u32| if number == 0 { usize::MAX } else { usize::try_from(number).unwrap_or(usize::MAX) };
        let limits = Limits { per_client: limit(per_client), in_all: limit(in_all) };
        Rate { limits, asked: Vec::new(), ledger }
    }

    pub fn admit(&mut self, client: Option<IpAddr>, pair: &Pair, now_ms: u64) -> Result<(), Duration> {
        if self.limits.are_none() {
            return Ok(());
        }
        let (question, limits) = (Question::new(client, pair, now_ms), self.limits);
        self.ledger.change(&mut self.asked, now_ms, |asked| limits.admit(asked, question))
    }

    pub fn forgive(&mut self, client: Option<IpAddr>, pair: &Pair, now_ms: u64) {
        if self.limits.are_none() {
            return;
        }
        let question = Question::new(client, pair, now_ms);
        self.ledger.change(&mut self.asked, now_ms, |asked| asked.retain(|known| !known.is_same(question)));
    }
}

impl Limits {
    fn are_none(self) -> bool {
        self.per_client == usize::MAX && self.in_all == usize::MAX
    }

    fn admit(self, asked: &mut Vec<Question>, question: Question) -> Result<(), Duration> {
        let now_ms = question.at_ms;
        let counting: Vec<_> = asked.iter().copied().filter(|known| known.counts(now_ms)).collect();
        if counting.iter().any(|known| known.is_same(question)) {
            return Ok(());
        }
        let his = counting.iter().filter(|known| known.client == question.client);
        let his: Vec<_> = his.map(|known| known.at_ms).collect();
        let all = if self.in_all == usize::MAX { Vec::new() } else { others(&counting, question.target) };
        for (limit, counting) in [(self.per_client, his), (self.in_all, all)] {
            // There is room once so many of the oldest no longer count that fewer than the limit are left.
            if let Some(last_ms) = counting.len().checked_sub(limit).and_then(|over| counting.get(over)) {
                return Err(expires_in(*last_ms, now_ms));
            }
        }
        if asked.len() > 2 * counting.len() + SLACK {
            *asked = counting;
        }
        if asked.len() >= MOST {
            asked.drain(..MOST / 8);
        }
        asked.push(question);
        Ok(())
    }
}

impl Question {
    fn new(client: Option<IpAddr>, pair: &Pair, at_ms: u64) -> Question {
        // No address holds a zero byte (RFC 7622, 3), so that no two pairs are the same bytes.
        let (word, jid) = match &pair.asker {
            Asker::Nobody => ("nobody", ""),
            Asker::Claimed(jid) => ("claimed", jid.as_str()),
            Asker::Proven(jid) => ("proven", jid.as_str()),
        };
        let target = pair.target.as_str();
        let pair = digest([target, word, jid].join("\0").as_bytes());
        Question { at_ms, client: digest(&network(client)), target: digest(target.as_bytes()), pair }
    }

    /// A time that lies ahead was written before the clock was set back, or by a process that was a moment quicker.
    fn counts(self, now_ms: u64) -> bool {
        self.at_ms.abs_diff(now_ms) < WINDOW_MS
    }

    fn is_same(self, other: Question) -> bool {
        (self.client, self.pair) == (other.client, other.pair)
    }
}

/// When each person was last asked for, the oldest first; nobody, if this one is among them.
fn others(counting: &[Question], target: Digest) -> Vec<u64> {
    let times: HashMap<_, _> = counting.iter().map(|known| (known.target, known.at_ms)).collect();
    if times.contains_key(&target) {
        return Vec::new();
    }
    let mut times: Vec<_> = times.into_values().collect();
    times.sort_unstable();
    times
}

/// How long something still counts that was asked then.
fn expires_in(at_ms: u64, now_ms: u64) -> Duration {
    let rest_ms = at_ms.saturating_add(WINDOW_MS).saturating_sub(now_ms);
    Duration::from_millis(rest_ms).clamp(Duration::from_secs(1), WINDOW)
}

/// Where a question comes from: an address, or an IPv6 network of 64 bits, which one customer has for himself. Nothing
/// is everybody whose web server does not tell.
fn network(client: Option<IpAddr>) -> Vec<u8> {
    match client.map(|address| address.to_canonical()) {
        None => Vec::new(),
        Some(IpAddr::V4(address)) => address.octets().to_vec(),
        Some(IpAddr::V6(address)) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).octets().to_vec(),
    }
}

fn digest(bytes: &[u8]) -> Digest {
    let whole = digest::digest(&digest::SHA256, bytes);
    u64::from_be_bytes(*whole.as_ref().first_chunk().expect("SHA-256 has 32 bytes"))
}

#[cfg(test)]
mod tests {
    use jid::BareJid;
    use log::Level;
    use tempfile::TempDir;

    use super::*;

    const NOW: u64 = 1_800_000_000_000;

    fn jid(text: &str) -> BareJid {
        BareJid::new(text).expect("a bare JID")
    }

    fn pair(number: usize) -> Pair {
        Pair { target: jid(&format!("u{number}@example.com")), asker: Asker::Nobody }
    }

    fn client(text: &str) -> Option<IpAddr> {
        text.parse().ok()
    }

    /// One process that has its memory, or another one for each question, which have a directory.
    struct Processes {
        limits: (u32, u32),
        rate: Rate,
        directory: Option<TempDir>,
    }

    impl Processes {
        fn new(per_client: u32, in_all: u32, directory: Option<TempDir>) -> Processes {
            let ledger = Ledger::new(directory.as_ref().map(TempDir::path), &jid("p.example.com"), Level::Warn);
            Processes { limits: (per_client, in_all), rate: Rate::new(per_client, in_all, ledger), directory }
        }

        fn each(per_client: u32, in_all: u32) -> [Processes; 2] {
            let directory = tempfile::tempdir().expect("a temporary directory");
            [None, Some(directory)].map(|directory| Processes::new(per_client, in_all, directory))
        }

        fn next(&mut self) -> &mut Rate {
            if let Some(directory) = self.directory.take() {
                *self = Processes::new(self.limits.0, self.limits.1, Some(directory));
            }
            &mut self.rate
        }

        fn admit(&mut self, from: &str, number: usize, now_ms: u64) -> Result<(), Duration> {
            self.next().admit(client(from), &pair(number), now_ms)
        }

        fn forgive(&mut self, from: &str, number: usize, now_ms: u64) {
            self.next().forgive(client(from), &pair(number), now_ms);
        }

        /// How many of a hundred people who are asked for at once are looked up.
        fn admitted(&mut self, from: &str, now_ms: u64) -> usize {
            self.admitted_after(0, from, now_ms)
        }

        fn admitted_after(&mut self, first: usize, from: &str, now_ms: u64) -> usize {
            (first..first + 100).filter(|n| self.admit(from, *n, now_ms).is_ok()).count()
        }
    }

    #[test]
    fn each_client_and_all_together() {
        for mut processes in Processes::each(10, 25) {
            for (from, first, expected) in [
                ("192.0.2.1", 0, 10),
                ("::ffff:192.0.2.1", 0, 10),
                ("2001:db8::1", 100, 10),
                ("2001:db8::ffff:1", 100, 10),
                ("2001:db8:0:1::1", 200, 5),
                ("", 300, 0),
                ("192.0.2.2", 300, 0),
                ("192.0.2.3", 0, 10),
            ] {
                let admitted = processes.admitted_after(first, from, NOW);
                assert_eq!(admitted, expected, "{from}: the same ones, those that others ask for, and no more");
            }
            let late = NOW + WINDOW_MS;
            assert_eq!(processes.admit("192.0.2.2", 300, late - 5000), Err(Duration::from_secs(5)));
            assert_eq!(processes.admit("192.0.2.2", 300, late - 1), Err(Duration::from_secs(1)));
            assert_eq!(processes.admitted("192.0.2.2", late), 10);
        }
    }

    #[test]
    fn it_is_told_when_there_is_room_for_this_client() {
        for mut processes in Processes::each(2, 0) {
            for (from, number, after_s, expected_s) in [
                ("192.0.2.9", 0, 0, None),
                ("192.0.2.1", 1, 10, None),
                ("192.0.2.1", 2, 20, None),
                ("192.0.2.1", 3, 30, Some(40)),
                ("192.0.2.1", 2, 30, None),
                ("192.0.2.9", 3, 30, None),
                ("192.0.2.1", 3, 70, None),
                ("192.0.2.1", 4, 70, Some(10)),
            ] {
                let result = processes.admit(from, number, NOW + 1000 * after_s);
                assert_eq!(result.err(), expected_s.map(Duration::from_secs), "{from} {number} {after_s}");
            }
        }
    }

    #[test]
    fn who_is_seen_was_no_guess() {
        for mut processes in Processes::each(10, 0) {
            for n in 0..100 {
                assert_eq!(processes.admit("192.0.2.1", n, NOW), Ok(()));
                processes.forgive("192.0.2.1", n, NOW);
            }
            assert_eq!(processes.admitted("192.0.2.1", NOW), 10);
            processes.forgive("192.0.2.2", 3, NOW);
            assert_eq!(processes.admit("192.0.2.1", 99, NOW), Err(WINDOW), "another's place is not his");
            processes.forgive("192.0.2.1", 3, NOW);
            assert_eq!(processes.admit("192.0.2.1", 3, NOW + WINDOW_MS / 2), Ok(()));
            let late = NOW + WINDOW_MS;
            assert_eq!((10..30).filter(|n| processes.admit("192.0.2.1", *n, late).is_ok()).count(), 9, "it counts on");
        }
    }

    #[test]
    fn visitors_are_told_apart_by_what_proves_them() {
        let [mut processes, _] = Processes::each(10, 0);
        let target = || jid("u1@example.com");
        let askers =
            [Asker::Nobody, Asker::Claimed(target()), Asker::Proven(target()), Asker::Proven(jid("example.com"))];
        for asker in askers {
            let pair = Pair { target: target(), asker };
            assert_eq!(processes.rate.admit(None, &pair, NOW), Ok(()));
            assert_eq!(processes.rate.admit(None, &pair, NOW), Ok(()));
        }
        assert_eq!(processes.rate.asked.len(), 4);
    }

    #[test]
    fn without_limits_nothing_is_remembered() {
        for mut processes in Processes::each(0, 0) {
            assert_eq!(processes.admitted("192.0.2.1", NOW), 100);
            processes.forgive("192.0.2.1", 1, NOW);
            assert_eq!(processes.rate.asked.len(), 0);
            let files = processes.directory.map(|directory| directory.path().read_dir().expect("a directory").count());
            assert_eq!(files.unwrap_or_default(), 0, "no file is touched");
        }
        for mut processes in Processes::each(0, 30) {
            assert_eq!(processes.admitted("192.0.2.1", NOW), 30);
        }
    }

    #[test]
    fn a_clock_that_is_set_stops_nobody_for_long() {
        for mut processes in Processes::each(1, 0) {
            assert_eq!(processes.admit("192.0.2.1", 1, NOW + WINDOW_MS), Ok(()), "by a clock that is fast");
            assert_eq!(processes.admit("192.0.2.1", 2, NOW + 1), Err(WINDOW));
            assert_eq!(processes.admit("192.0.2.1", 2, NOW), Ok(()), "nobody writes so far ahead");
        }
    }

    #[test]
    fn what_no_longer_counts_leaves_the_list() {
        for mut processes in Processes::each(0, 100) {
            for minute in 0..10 {
                assert_eq!(processes.admitted("192.0.2.1", NOW + minute * WINDOW_MS), 100);
                assert!(processes.rate.asked.len() <= 2 * 100 + SLACK, "{}", processes.rate.asked.len());
            }
        }
    }

    #[test]
    fn clients_cannot_make_it_grow() {
        let limits = Limits { per_client: 1, in_all: usize::MAX };
        let asked = |n: usize| Question { at_ms: NOW, client: n as u64, target: 0, pair: 0 };
        let mut list: Vec<_> = (0..MOST - 1).map(asked).collect();
        for (n, expected) in [(MOST - 1, MOST), (MOST, MOST - MOST / 8 + 1)] {
            assert_eq!(limits.admit(&mut list, asked(n)), Ok(()));
            assert_eq!((list.len(), list.last()), (expected, Some(&asked(n))));
        }
        assert_eq!(list[0], asked(MOST / 8), "the oldest are forgotten");
    }
}
