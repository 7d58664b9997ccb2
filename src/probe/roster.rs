//! What somebody's roster tells us (RFC 6121, 2.1): whether he lets us see him, and whom else. A server's word, read as
//! leniently as any: what names no person or host is passed over, and no contact's address is kept.

use jid::BareJid;
use xmpp_parsers::minidom::Element;

use super::ns;
use crate::viewers::Viewers;

/// Who lets us see him, or does not.
pub fn lets_see(roster: &Element, us: &BareJid) -> bool {
    watchers(roster).any(|jid| jid == *us)
}

/// Whom the owner lets see him; `None` if this is no roster. We are none of them: everybody who shows himself on the web
/// has us there, so that our name in a request would open every door.
pub fn viewers(roster: &Element, us: &BareJid) -> Option<Viewers> {
    let is_roster = roster.is("query", ns::ROSTER);
    let others: Vec<_> = watchers(roster).filter(|jid| jid != us).collect();
    is_roster.then(|| Viewers::of(&others))
}

/// Who lets the owner see him (RFC 6121, 2.1.2.5).
pub fn watched(roster: &Element) -> impl Iterator<Item = BareJid> {
    contacts(roster).filter_map(|(subscription, jid)| matches!(subscription, "to" | "both").then_some(jid))
}

/// Whoever has a subscription to the owner.
fn watchers(roster: &Element) -> impl Iterator<Item = BareJid> {
    contacts(roster).filter_map(|(subscription, jid)| matches!(subscription, "from" | "both").then_some(jid))
}

/// By the bare addresses that rosters hold (RFC 6121, 2.1.2.3), with the subscription of each.
fn contacts(roster: &Element) -> impl Iterator<Item = (&str, BareJid)> {
    let lines = roster.texts().flat_map(str::lines).filter_map(|line| line.split_once(' '));
    lines.filter_map(|(subscription, jid)| Some((subscription, BareJid::new(jid).ok()?)))
}

/// An item of a roster as a line of text in its place: as elements, the 40,000 items of the longest roster would take a
/// hundred megabytes. Empty where nothing follows from it; `None` for what is no item of a roster.
pub fn note(parent: &Element, item: &Element) -> Option<String> {
    if !parent.is("query", ns::ROSTER) || !item.is("item", ns::ROSTER) {
        return None;
    }
    let subscription = item.attr("subscription").filter(|subscription| matches!(*subscription, "from" | "to" | "both"));
    let jid = item.attr("jid").filter(|jid| !jid.contains(char::is_control));
    let line = subscription.zip(jid).map(|(subscription, jid)| format!("{subscription} {jid}\n"));
    Some(line.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::stream::{Incoming, Reader};

    fn us() -> BareJid {
        BareJid::new("presence.example.com").expect("a bare JID")
    }

    fn roster(items: &str) -> Element {
        payload(&format!("<query xmlns='jabber:iq:roster'>{items}</query>"))
    }

    /// As it comes out of the stream.
    fn payload(xml: &str) -> Element {
        let text = format!(
            "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>\
             <iq type='result' id='q1'>{xml}</iq>"
        );
        let (mut reader, mut bytes) = (Reader::default(), text.as_bytes());
        let incoming = [(); 2].map(|()| reader.next(&mut bytes).expect("well-formed"));
        let [_, Some(Incoming::Element(iq))] = incoming else { panic!("{incoming:?}") };
        iq.children().next().expect("a payload").clone()
    }

    #[test]
    fn those_with_a_subscription_to_the_owner_are_viewers() {
        let rows = [
            ("", 0, false),
            ("<item jid='bob@example.com' subscription='from'/>", 1, false),
            ("<item jid='BOB@Example.com' subscription='both' name='B'><group>Friends</group></item>", 1, false),
            ("<item jid='bob@example.com' subscription='to'/>", 0, false),
            ("<item jid='bob@example.com' subscription='none' ask='subscribe' approved='true'/>", 0, false),
            ("<item jid='bob@example.com' subscription='remove'/>", 0, false),
            ("<item jid='bob@example.com' subscription='FROM'/>", 0, false),
            ("<item jid='bob@example.com'/>", 0, false),
            ("<item jid='presence.example.com' subscription='from'/>", 0, true),
            ("<item jid='presence.example.com/x' subscription='from'/>", 0, false),
            ("<item jid='presence.example.com' subscription='to'/>", 0, false),
        ];
        for (items, many, lets_us_see) in rows {
            let roster = roster(items);
            let viewers = viewers(&roster, &us()).expect("a roster");
            assert_eq!((viewers.len(), lets_see(&roster, &us())), (many, lets_us_see), "{items}");
            let bob = BareJid::new("bob@example.com").expect("a bare JID");
            assert_eq!(viewers.holds(&bob), many == 1, "{items}");
        }
    }

    #[test]
    fn a_hostile_roster_shows_nobody_more() {
        let bob = "<item jid='bob@example.com' subscription='both'/>";
        let rows = [
            (bob.repeat(3), 1),
            (format!("<item jid='a@example.com'>{bob}</item>"), 0),
            (format!("<query xmlns='jabber:iq:roster'>{bob}</query>"), 0),
            ("<item xmlns='jabber:client' jid='bob@example.com' subscription='both'/>".to_owned(), 0),
            ("<contact jid='bob@example.com' subscription='both'/>".to_owned(), 0),
            ("<item jid='bob@example.com/home' subscription='both'/>".to_owned(), 0),
            ("<item jid='' subscription='both'/><item jid='@' subscription='both'/>".to_owned(), 0),
            ("<item jid='x@y&#10;both bob@example.com' subscription='both'/>".to_owned(), 0),
            (format!("<item jid='@@' subscription='both'/><item subscription='both'/>{bob}"), 1),
            (format!("<item jid='{}@example.com' subscription='both'/>", "x".repeat(1024)), 0),
        ];
        for (items, many) in rows {
            assert_eq!(viewers(&roster(&items), &us()).expect("a roster").len(), many, "{items}");
        }
        for other in ["<query xmlns='jabber:iq:last'/>", "<item xmlns='jabber:iq:roster'/>"] {
            assert_eq!(viewers(&payload(other), &us()), None, "{other}");
        }
    }
}
