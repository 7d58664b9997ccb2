//! Where an account's server is, asked of a real name server.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use domain::resolv::stub::conf::{ResolvConf, ServerConf, Transport};
use tokio::time::Instant;
use webpresence::config::Security;
use webpresence::probe::dns::{self, Target};
use webpresence::probe::tls::Beginning;

use crate::rig::dns::NameServer;

fn conf(address: SocketAddr) -> ResolvConf {
    let mut conf = ResolvConf::new();
    conf.servers = vec![ServerConf::new(address, Transport::UdpTcp)];
    conf.finalize();
    conf
}

/// The targets as `host:port`, with `tls` behind those where it begins at once; within a generous time.
fn targets(address: SocketAddr, security: Security, domain: &str) -> Option<Vec<String>> {
    targets_within(Duration::from_secs(20), address, security, domain)
}

fn targets_within(time: Duration, address: SocketAddr, security: Security, domain: &str) -> Option<Vec<String>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let found = runtime.block_on(async { dns::targets(conf(address), security, domain, Instant::now() + time).await });
    let said = |Target { host, port, beginning }: Target| {
        format!("{host}:{port}{}", if beginning == Beginning::AtOnce { " tls" } else { "" })
    };
    found.map(|found| found.into_iter().map(said).collect())
}

fn some(targets: &[&str]) -> Option<Vec<String>> {
    Some(targets.iter().map(|target| (*target).to_owned()).collect())
}

#[test]
fn srv_records_are_tried_by_priority_and_weight() {
    let server = NameServer::start(&[
        "_xmpp-client._tcp.ordered.test,last.ordered.test,5222,30,0",
        "_xmpp-client._tcp.ordered.test,first.ordered.test,443,10,0",
        "_xmpp-client._tcp.ordered.test,second.ordered.test,5269,20,0",
        "_xmpp-client._tcp.weighted.test,heavy.weighted.test,5222,10,1000",
        "_xmpp-client._tcp.weighted.test,light.weighted.test,5222,10,1",
    ]);
    let ordered = ["first.ordered.test:443", "second.ordered.test:5269", "last.ordered.test:5222"];
    for _ in 0..5 {
        assert_eq!(targets(server.address, Security::AsOffered, "ordered.test"), some(&ordered));
    }
    let mut heavy_first = 0;
    for _ in 0..40 {
        let found = targets(server.address, Security::AsOffered, "weighted.test").expect("there is a service");
        assert_eq!(found.len(), 2, "{found:?}");
        heavy_first += usize::from(found[0] == "heavy.weighted.test:5222");
    }
    // One in a thousand goes the other way: twenty of forty never do.
    assert!(heavy_first > 20, "{heavy_first} of 40");
}

/// XEP-0368: one list of both services; the admin may want one of them only.
#[test]
fn both_services_are_one_list() {
    let server = NameServer::start(&[
        "_xmpp-client._tcp.mixed.test,a.mixed.test,5222,20,0",
        "_xmpp-client._tcp.mixed.test,c.mixed.test,5222,40,0",
        "_xmpps-client._tcp.mixed.test,b.mixed.test,443,30,0",
        "_xmpps-client._tcp.mixed.test,a.mixed.test,5223,10,0",
        "_xmpps-client._tcp.direct.test,direct.test,443,10,0",
        "_xmpps-client._tcp.only.test,only.test,443,10,0",
        "_xmpp-client._tcp.only.test",
        "_xmpps-client._tcp.other.test",
        "_xmpp-client._tcp.other.test,other.test,5222,10,0",
        "_xmpp-client._tcp.none.test",
        "_xmpp-client._tcp.neither.test",
        "_xmpps-client._tcp.neither.test",
        "_xmpps-client._tcp.plain.test",
    ]);
    use Security::{AsOffered, Direct, StartTls};
    for (security, domain, expected) in [
        (
            AsOffered,
            "mixed.test",
            some(&["a.mixed.test:5223 tls", "a.mixed.test:5222", "b.mixed.test:443 tls", "c.mixed.test:5222"]),
        ),
        (StartTls, "mixed.test", some(&["a.mixed.test:5222", "c.mixed.test:5222"])),
        (Direct, "mixed.test", some(&["a.mixed.test:5223 tls", "b.mixed.test:443 tls"])),
        (AsOffered, "direct.test", some(&["direct.test:443 tls"])),
        (AsOffered, "only.test", some(&["only.test:443 tls"])),
        (AsOffered, "other.test", some(&["other.test:5222"])),
        (StartTls, "only.test", None),
        (Direct, "other.test", None),
        (AsOffered, "none.test", None),
        (AsOffered, "neither.test", None),
        // No direct TLS is what most have.
        (AsOffered, "plain.test", some(&["plain.test:5222"])),
        (AsOffered, "unknown.test", some(&["unknown.test:5222"])),
        (StartTls, "unknown.test", some(&["unknown.test:5222"])),
        (Direct, "unknown.test", some(&["unknown.test:5223 tls"])),
    ] {
        assert_eq!(targets(server.address, security, domain), expected, "{security:?} {domain}");
    }
}

#[test]
fn without_an_answer_it_is_the_domain_itself() {
    let silent = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let address = silent.local_addr().expect("it is bound");
    for domain in ["plain.test", "xn--nxasmq6b.test", &"x".repeat(70)] {
        let found = targets_within(Duration::from_millis(200), address, Security::AsOffered, domain);
        assert_eq!(found, some(&[&format!("{domain}:5222")]), "{domain}");
    }
}
