//! Logs in to an account with tokio-xmpp, asks for one person's presence, prints it and ends.
//!
//!     account direct|starttls JID PASSWORD ADDRESS:PORT TARGET
//!
//! Gives up after five seconds, since tokio-xmpp tries a refused login again for ever and tells nobody.

use std::time::Duration;

use futures::StreamExt;
use tokio_xmpp::connect::DnsConfig;
use tokio_xmpp::jid::Jid;
use tokio_xmpp::parsers::presence::{Presence, Type};
use tokio_xmpp::xmlstream::Timeouts;
use tokio_xmpp::{Client, Event, Stanza};

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [security, jid, password, server, target] = &arguments[..] else { panic!("see the source") };
    let (jid, target) = (Jid::new(jid).expect("a JID"), Jid::new(target).expect("a JID"));
    std::thread::spawn(|| {
        std::thread::sleep(Duration::from_secs(5));
        std::process::exit(1);
    });
    let (server, timeouts) = (DnsConfig::addr(server), Timeouts::tight());
    let mut client = match security.as_str() {
        "direct" => Client::new_direct_tls_with_config(jid, password, server, timeouts),
        _ => Client::new_starttls(jid, password, server, timeouts),
    };
    while let Some(event) = client.next().await {
        match event {
            Event::Online { .. } => {
                let probe = Presence::new(Type::Probe).with_to(target.clone());
                client.send_stanza(probe.into()).await.expect("the server reads");
            }
            Event::Stanza(Stanza::Presence(presence))
                if presence.from.as_ref().is_some_and(|from| from.to_bare() == target) =>
            {
                println!("{target}: {:?}", presence.show);
                return;
            }
            Event::Disconnected(error) => panic!("{error}"),
            Event::Stanza(_) => {}
        }
    }
    panic!("the server closed the stream");
}
