//! People who come to us: who adds this identity to his contacts offers to be shown, and who writes to it says how. What
//! follows from that is decided by whoever holds the session, since it must be remembered; here it is only understood,
//! for people of the domains we serve, and never faster than a person could mean it.

use std::collections::HashMap;
use std::time::Duration;

use jid::BareJid;
use tokio::time::Instant;

use crate::config::{DomainPattern, Identity};

/// What is answered within [`SPAN`], to one person and in all; more is not heard.
const PER_PERSON: u32 = 20;
const IN_ALL: u32 = 200;
const SPAN: Duration = Duration::from_secs(60);

/// How somebody wants to be shown. It wins over the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// As the configuration says.
    On,
    /// Not at all.
    Off,
    /// Without his status text.
    TextOff,
    /// Only whether he is there.
    Coarse,
    /// He wants to know what he can say.
    Help,
}

impl Order {
    /// What is not understood asks for help.
    pub fn read(text: &str) -> Order {
        let said = text.split_whitespace().take(3).collect::<Vec<_>>().join(" ").to_lowercase();
        let orders = [Order::On, Order::Off, Order::TextOff, Order::Coarse];
        orders.into_iter().find(|order| order.name() == said).unwrap_or(Order::Help)
    }

    pub fn name(self) -> &'static str {
        match self {
            Order::On => "on",
            Order::Off => "off",
            Order::TextOff => "text off",
            Order::Coarse => "coarse",
            Order::Help => "help",
        }
    }

    /// What he reads when it is done.
    pub fn reply(self) -> &'static str {
        match self {
            Order::On => "You are shown again, as this site is set up.",
            Order::Off => "You are no longer shown, until you write: on",
            Order::TextOff => "Your status text is no longer shown, until you write: on",
            Order::Coarse => "Only whether you are there is shown, until you write: on",
            Order::Help => {
                "I tell a web site whether you are there. Write one of these:\n\
                 off - show nothing of me\n\
                 text off - do not show my status text\n\
                 coarse - show only whether I am there\n\
                 on - show everything again\n\
                 Removing me from your contacts ends it for good."
            }
        }
    }
}

/// What he reads where it cannot be done.
pub const CANNOT_REMEMBER: &str = "This site cannot remember that. To end it, remove me from your contacts.";

/// See the module.
pub struct Guests {
    domains: Vec<DomainPattern>,
    since: Option<Instant>,
    heard: HashMap<BareJid, u32>,
    in_all: u32,
}

impl Guests {
    pub fn of(identity: &Identity) -> Guests {
        Guests { domains: identity.access.domains.clone(), since: None, heard: HashMap::new(), in_all: 0 }
    }

    /// True where somebody is answered: he belongs to us, and has not said too much.
    pub fn hears(&mut self, from: &BareJid, now: Instant) -> bool {
        let domain = from.domain().as_str();
        if from.node().is_none() || !self.domains.iter().any(|pattern| pattern.holds(domain)) {
            return false;
        }
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= SPAN) {
            (self.since, self.in_all) = (Some(now), 0);
            self.heard.clear();
        }
        if self.in_all >= IN_ALL {
            return false;
        }
        let heard = self.heard.entry(from.clone()).or_default();
        if *heard >= PER_PERSON {
            return false;
        }
        *heard += 1;
        self.in_all += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jid(text: &str) -> BareJid {
        BareJid::new(text).expect("a bare JID")
    }

    fn guests() -> Guests {
        let domains = vec![DomainPattern::Exactly("example.com".into()), DomainPattern::Below("example.com".into())];
        Guests { domains, since: None, heard: HashMap::new(), in_all: 0 }
    }

    #[test]
    fn orders_are_short_words() {
        for (text, order) in [
            ("off", Order::Off),
            (" Off\n", Order::Off),
            ("ON", Order::On),
            ("text  off", Order::TextOff),
            ("coarse", Order::Coarse),
            ("help", Order::Help),
            ("", Order::Help),
            ("off please", Order::Help),
            ("turn off now or never", Order::Help),
        ] {
            assert_eq!(Order::read(text), order, "{text:?}");
        }
    }

    #[test]
    fn only_people_of_our_domains_are_heard() {
        let mut guests = guests();
        for (from, heard) in [
            ("bob@example.com", true),
            ("bob@rooms.example.com", true),
            ("bob@example.org", false),
            ("example.com", false),
        ] {
            assert_eq!(guests.hears(&jid(from), Instant::now()), heard, "{from}");
        }
    }

    #[test]
    fn nobody_is_answered_more_often_than_he_could_mean_it() {
        let (mut guests, now) = (guests(), Instant::now());
        let heard = |guests: &mut Guests, from: &str, now| (0..50).filter(|_| guests.hears(&jid(from), now)).count();
        assert_eq!(heard(&mut guests, "bob@example.com", now), PER_PERSON as usize);
        assert_eq!(heard(&mut guests, "eve@example.com", now), PER_PERSON as usize);
        let crowd: usize = (0..100).map(|n| heard(&mut guests, &format!("u{n}@example.com"), now)).sum();
        assert_eq!(crowd, (IN_ALL - 2 * PER_PERSON) as usize);
        assert_eq!(heard(&mut guests, "bob@example.com", now + SPAN), PER_PERSON as usize);
    }
}
