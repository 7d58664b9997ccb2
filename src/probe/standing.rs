//! How an identity stands with its own server, for those who look after it: the server's clock (XEP-0202), whether it
//! lets us read the rosters of its users (XEP-0356), and how many people we have seen. Nobody's answer depends on it,
//! so a server that does not tell costs a moment and is no failure.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use xmpp_parsers::minidom::Element;
use xmpp_parsers::time::TimeResult;

/// How long the server may take to tell its time. COMPAT: one ejabberd drops every IQ of a component while
/// mod_privilege is on.
const PATIENCE: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// What time it is there, in seconds since 1970.
    pub time_s: Option<u64>,
    /// As of this session.
    pub grants_rosters: bool,
    /// People who have let us see them within a day.
    pub seen: usize,
}

/// The server's time, asked for in one session.
#[derive(Debug, Default)]
pub struct Times(Vec<Asked>);

#[derive(Debug)]
struct Asked {
    id: u64,
    until: Instant,
    /// The inner one is `None` where the server has none.
    told: Option<Option<u64>>,
}

impl Times {
    pub fn put(&mut self, id: u64, until: Instant) {
        self.0.push(Asked { id, until, told: None });
    }

    /// It is out: from now on the server's silence counts.
    pub fn sent(&mut self, now: Instant) {
        self.0.iter_mut().for_each(|asked| asked.until = asked.until.min(now + PATIENCE));
    }

    /// What came for it; `None` is an error.
    pub fn told(&mut self, id: u64, payload: Option<Element>) {
        let time = payload.and_then(|payload| TimeResult::try_from(payload).ok());
        let time_s = time.and_then(|time| u64::try_from(time.utc.timestamp()).ok());
        self.0.iter_mut().filter(|asked| asked.id == id).for_each(|asked| asked.told = Some(time_s));
    }

    /// When the next one is over.
    pub fn next(&self, now: Instant) -> Option<Instant> {
        self.0.iter().map(|asked| if asked.told.is_some() { now } else { asked.until }).min()
    }

    /// Those that are over.
    pub fn settled(&mut self, now: Instant) -> Vec<(u64, Option<u64>)> {
        let settled = self.0.extract_if(.., |asked| asked.told.is_some() || asked.until <= now);
        settled.map(|asked| (asked.id, asked.told.flatten())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn element(xml: &str) -> Option<Element> {
        Some(xml.parse().expect("XML"))
    }

    #[test]
    fn a_server_tells_its_time_or_does_not() {
        let now = Instant::now();
        let time =
            |utc: &str| element(&format!("<time xmlns='urn:xmpp:time'><tzo>+02:00</tzo><utc>{utc}</utc></time>"));
        for (payload, told) in [
            (time("1970-01-01T00:01:00Z"), Some(60)),
            (time("1970-01-01T00:01:00.9Z"), Some(60)),
            (time("1969-12-31T23:59:59Z"), None),
            (time("soon"), None),
            (element("<time xmlns='urn:xmpp:time'/>"), None),
            (None, None),
        ] {
            let mut times = Times::default();
            times.put(7, now + PATIENCE);
            assert_eq!((times.next(now), times.settled(now)), (Some(now + PATIENCE), vec![]));
            times.told(8, time("1970-01-01T00:01:00Z"));
            assert_eq!(times.settled(now), vec![], "another's");
            times.told(7, payload.clone());
            assert_eq!((times.next(now), times.settled(now)), (Some(now), vec![(7, told)]), "{payload:?}");
            assert_eq!(times.next(now), None);
        }
    }

    #[test]
    fn silence_costs_a_moment() {
        let now = Instant::now();
        for (deadline, over) in [(PATIENCE / 2, PATIENCE / 2), (9 * PATIENCE, PATIENCE)] {
            let mut times = Times::default();
            times.put(7, now + deadline);
            times.sent(now);
            assert_eq!(times.next(now), Some(now + over));
            assert_eq!(times.settled(now + over - Duration::from_millis(1)), vec![]);
            assert_eq!(times.settled(now + over), vec![(7, None)]);
        }
    }
}
