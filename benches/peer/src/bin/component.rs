//! Logs in as a component with tokio-xmpp, asks for one person's presence, prints it and ends.
//!
//!     component JID PASSWORD ADDRESS:PORT TARGET

use futures::StreamExt;
use tokio_xmpp::connect::DnsConfig;
use tokio_xmpp::jid::Jid;
use tokio_xmpp::parsers::presence::{Presence, Type};
use tokio_xmpp::xmlstream::Timeouts;
use tokio_xmpp::{Component, Stanza};

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [jid, password, server, target] = &arguments[..] else { panic!("JID PASSWORD ADDRESS:PORT TARGET") };
    let target = Jid::new(target).expect("a JID");
    let server = DnsConfig::addr(server);
    let mut component =
        Component::new_plaintext(jid, password, server, Timeouts::tight()).await.expect("the server takes it");
    let probe = Presence::new(Type::Probe).with_from(Jid::new(jid).expect("a JID")).with_to(target.clone());
    component.send_stanza(probe.into()).await.expect("the server reads");
    while let Some(stanza) = component.next().await {
        if let Stanza::Presence(presence) = stanza
            && presence.from.as_ref().is_some_and(|from| from.to_bare() == target)
        {
            println!("{target}: {:?}", presence.show);
            return;
        }
    }
    panic!("the server closed the stream");
}
