//! Where an account's server is, by DNS SRV (RFC 2782): the records for STARTTLS (RFC 6120, 3.2) and those for TLS from
//! the first byte (XEP-0368) are asked for at once and tried as one list. Addresses of hosts are the system's business.

use std::time::Duration;

use domain::base::Rtype;
use domain::base::iana::Rcode;
use domain::base::name::{Name, RelativeName};
use domain::rdata::Srv;
use domain::resolv::stub::StubResolver;
use domain::resolv::stub::conf::ResolvConf;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::time::{Instant, timeout_at};

use super::tls::Beginning;
use crate::config::Security;

/// How much longer the other answer is waited for once one has named servers.
const STRAGGLER: Duration = Duration::from_millis(250);

/// A host, its port, and how TLS begins there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub host: String,
    pub port: u16,
    pub beginning: Beginning,
}

/// The targets for `domain`, in the order to try them. Without records, and where DNS does not answer `until` then, it
/// is the domain itself; `None` where the domain says that there is no such service (a target of `.`).
pub async fn targets(conf: ResolvConf, security: Security, domain: &str, until: Instant) -> Option<Vec<Target>> {
    let ask = |beginning| records(&conf, beginning, domain, until);
    let (plain, direct) = match security {
        Security::Direct => (Offer::Unsaid, ask(Beginning::AtOnce).await),
        Security::AsOffered => both(ask(Beginning::InStream), ask(Beginning::AtOnce)).await,
        Security::StartTls | Security::None => (ask(Beginning::InStream).await, Offer::Unsaid),
    };
    let itself = |beginning, port| Some(vec![Target { host: domain.to_owned(), port, beginning }]);
    match (plain, direct) {
        (Offer::Servers(mut plain), Offer::Servers(direct)) => {
            plain.extend(direct);
            Some(in_order(plain, &mut random))
        }
        (Offer::Servers(servers), _) | (_, Offer::Servers(servers)) => Some(in_order(servers, &mut random)),
        // Nobody has to say that there is no direct TLS, which is the exception.
        (Offer::Nothing, _) => None,
        (Offer::Unsaid, Offer::Nothing) if security == Security::Direct => None,
        (Offer::Unsaid, _) if security == Security::Direct => itself(Beginning::AtOnce, 5223),
        (Offer::Unsaid, _) => itself(Beginning::InStream, 5222),
    }
}

/// What a domain says of one service.
enum Offer {
    Servers(Vec<Record>),
    /// `.`: decidedly not available here (RFC 2782).
    Nothing,
    /// No records, or no answer.
    Unsaid,
}

/// An SRV record.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Record {
    priority: u16,
    weight: u16,
    target: Target,
}

/// Both answers; the later one is not waited for much longer where the first names servers.
async fn both(plain: impl Future<Output = Offer>, direct: impl Future<Output = Offer>) -> (Offer, Offer) {
    async fn rest(first: &Offer, other: impl Future<Output = Offer>) -> Offer {
        match first {
            Offer::Servers(_) => timeout_at(Instant::now() + STRAGGLER, other).await.unwrap_or(Offer::Unsaid),
            Offer::Nothing | Offer::Unsaid => other.await,
        }
    }
    tokio::pin!(plain, direct);
    tokio::select! {
        offer = &mut plain => {
            let other = rest(&offer, direct).await;
            (offer, other)
        }
        offer = &mut direct => {
            let other = rest(&offer, plain).await;
            (other, offer)
        }
    }
}

async fn records(conf: &ResolvConf, beginning: Beginning, domain: &str, until: Instant) -> Offer {
    match timeout_at(until, query(conf, beginning, domain)).await {
        Ok(Ok(offer)) => offer,
        Ok(Err(error)) => {
            log::debug!("SRV of {domain}: {error}");
            Offer::Unsaid
        }
        Err(_) => {
            log::debug!("SRV of {domain}: no answer");
            Offer::Unsaid
        }
    }
}

async fn query(conf: &ResolvConf, beginning: Beginning, domain: &str) -> Result<Offer, Box<dyn std::error::Error>> {
    let service = match beginning {
        Beginning::InStream => "_xmpp-client._tcp",
        Beginning::AtOnce => "_xmpps-client._tcp",
    };
    let name = service.parse::<RelativeName<Vec<u8>>>()?.chain(domain.parse::<Name<Vec<u8>>>()?)?;
    let answer = StubResolver::from_conf(conf.clone()).query((name, Rtype::SRV)).await?;
    let message = answer.as_ref();
    if !matches!(message.header().rcode(), Rcode::NOERROR | Rcode::NXDOMAIN) {
        return Err(message.header().rcode().to_string().into());
    }
    // At the end of its aliases, where there are any.
    let owner = message.canonical_name().ok_or("no answer to the question")?;
    let (mut servers, mut nothing) = (Vec::new(), false);
    for record in message.answer()?.limit_to_in::<Srv<_>>().flatten().filter(|record| *record.owner() == owner) {
        let srv = record.data();
        if srv.target().is_root() {
            nothing = true;
            continue;
        }
        let target = Target { host: srv.target().to_string(), port: srv.port(), beginning };
        servers.push(Record { priority: srv.priority(), weight: srv.weight(), target });
    }
    Ok(match (servers.is_empty(), nothing) {
        (false, _) => Offer::Servers(servers),
        (true, true) => Offer::Nothing,
        (true, false) => Offer::Unsaid,
    })
}

/// By priority; among equals by chance, as their weights say (RFC 2782). `random` gives a number up to its argument.
fn in_order(mut records: Vec<Record>, random: &mut dyn FnMut(u32) -> u32) -> Vec<Target> {
    // Those without weight first: they still have a small chance.
    records.sort_by_key(|record| (record.priority, record.weight));
    let mut targets = Vec::new();
    while let Some(first) = records.first() {
        let equals = records.iter().take_while(|record| record.priority == first.priority);
        let sums: Vec<u32> = equals
            .scan(0, |sum, record| {
                *sum += u32::from(record.weight);
                Some(*sum)
            })
            .collect();
        let chosen = random(sums.last().copied().unwrap_or_default());
        let index = sums.iter().position(|sum| *sum >= chosen).unwrap_or_default();
        targets.push(records.remove(index).target);
    }
    targets
}

fn random(most: u32) -> u32 {
    let mut bytes = [0; 8];
    SystemRandom::new().fill(&mut bytes).expect("the kernel gives random numbers once it has booted");
    let number = u64::from_ne_bytes(bytes) % (u64::from(most) + 1);
    u32::try_from(number).unwrap_or(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(priority: u16, weight: u16, host: &str) -> Record {
        let target = Target { host: host.to_owned(), port: 5222, beginning: Beginning::InStream };
        Record { priority, weight, target }
    }

    /// The hosts in their order, and what was asked of chance.
    fn order(records: &[Record], chances: &[u32]) -> (String, Vec<u32>) {
        let (mut asked, mut chances) = (Vec::new(), chances.iter());
        let mut random = |most| {
            asked.push(most);
            *chances.next().expect("enough numbers")
        };
        let hosts = in_order(records.to_vec(), &mut random).into_iter().map(|target| target.host);
        (hosts.collect::<Vec<_>>().join(" "), asked)
    }

    #[test]
    fn equals_are_chosen_by_weight() {
        let records = [record(10, 60, "a"), record(20, 5, "c"), record(10, 20, "b"), record(10, 0, "z")];
        for (chances, hosts, asked) in [
            ([0, 0, 0, 0], "z b a c", [80, 80, 60, 5]),
            ([1, 0, 0, 5], "b z a c", [80, 60, 60, 5]),
            ([20, 1, 0, 5], "b a z c", [80, 60, 0, 5]),
            ([21, 20, 0, 5], "a b z c", [80, 20, 0, 5]),
            ([80, 0, 20, 5], "a z b c", [80, 20, 20, 5]),
        ] {
            assert_eq!(order(&records, &chances), (hosts.to_owned(), asked.to_vec()), "{chances:?}");
        }
        let heavy = [record(0, u16::MAX, "a"), record(0, u16::MAX, "b")];
        assert_eq!(order(&heavy, &[131_070, 0]), ("b a".to_owned(), vec![131_070, 65_535]));
        assert_eq!(order(&[], &[]), (String::new(), vec![]));
    }

    #[test]
    fn chance_stays_within_its_bounds() {
        for most in [0, 1, 3, u32::MAX] {
            assert!((0..100).all(|_| random(most) <= most), "{most}");
        }
        assert!((0..1000).any(|_| random(1) == 0) && (0..1000).any(|_| random(1) == 1));
    }
}
