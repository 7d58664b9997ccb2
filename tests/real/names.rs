//! Where an account's server is, asked of a real name server.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use domain::resolv::stub::conf::{ResolvConf, ServerConf, Transport};
use webpresence::probe::dns;

use crate::rig::dns::NameServer;

fn conf(address: SocketAddr) -> ResolvConf {
    let mut conf = ResolvConf::new();
    conf.servers = vec![ServerConf::new(address, Transport::UdpTcp)];
    conf.options.timeout = Duration::from_millis(300);
    conf.options.attempts = 1;
    conf.finalize();
    conf
}

fn targets(address: SocketAddr, domain: &str) -> Option<Vec<dns::Target>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(dns::targets(conf(address), "_xmpp-client._tcp", domain, 5222))
}

fn some(targets: &[(&str, u16)]) -> Option<Vec<dns::Target>> {
    Some(targets.iter().map(|(host, port)| ((*host).to_owned(), *port)).collect())
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
    let ordered = [("first.ordered.test", 443), ("second.ordered.test", 5269), ("last.ordered.test", 5222)];
    for _ in 0..5 {
        assert_eq!(targets(server.address, "ordered.test"), some(&ordered));
    }
    let mut heavy_first = 0;
    for _ in 0..40 {
        let found = targets(server.address, "weighted.test").expect("there is a service");
        assert_eq!(found.len(), 2, "{found:?}");
        heavy_first += usize::from(found[0].0 == "heavy.weighted.test");
    }
    // One in a thousand goes the other way: twenty of forty never do.
    assert!(heavy_first > 20, "{heavy_first} of 40");
}

#[test]
fn a_domain_may_say_that_it_has_no_such_service() {
    let server = NameServer::start(&["_xmpp-client._tcp.none.test"]);
    assert_eq!(targets(server.address, "none.test"), None);
}

#[test]
fn without_srv_records_it_is_the_domain_itself() {
    let server = NameServer::start(&["_xmpp-client._tcp.other.test,host.other.test,5222,0,0"]);
    assert_eq!(targets(server.address, "plain.test"), some(&[("plain.test", 5222)]));
}

#[test]
fn without_an_answer_it_is_the_domain_itself() {
    let silent = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let address = silent.local_addr().expect("it is bound");
    assert_eq!(targets(address, "plain.test"), some(&[("plain.test", 5222)]));
    assert_eq!(targets(address, "xn--nxasmq6b.test"), some(&[("xn--nxasmq6b.test", 5222)]));
    assert_eq!(targets(address, &"x".repeat(70)), some(&[(&"x".repeat(70), 5222)]));
}
