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

/// Whoever has a subscription to the owner (RFC 6121, 2.1.2.5), by the bare addresses that rosters hold (2.1.2.3).
fn watchers(roster: &Element) -> impl Iterator<Item = BareJid> {
    let items = roster.children().filter(|item| item.is("item", ns::ROSTER));
    let subscribed = items.filter(|item| matches!(item.attr("subscription"), Some("from" | "both")));
    subscribed.filter_map(|item| BareJid::new(item.attr("jid")?).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn us() -> BareJid {
        BareJid::new("presence.example.com").expect("a bare JID")
    }

    fn roster(items: &str) -> Element {
        format!("<query xmlns='jabber:iq:roster'>{items}</query>").parse().expect("XML")
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
            (format!("<item jid='@@' subscription='both'/><item subscription='both'/>{bob}"), 1),
            (format!("<item jid='{}@example.com' subscription='both'/>", "x".repeat(1024)), 0),
        ];
        for (items, many) in rows {
            assert_eq!(viewers(&roster(&items), &us()).expect("a roster").len(), many, "{items}");
        }
        for other in ["<query xmlns='jabber:iq:last'/>", "<item xmlns='jabber:iq:roster'/>"] {
            assert_eq!(viewers(&other.parse().expect("XML"), &us()), None, "{other}");
        }
    }
}
