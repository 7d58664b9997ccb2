//! Stanzas, both ways: what we send, as text for the stream, and what comes in, read as leniently as RFC 6121 lets
//! clients be careless (an unknown `<show>` or a bad `<priority>` must not hide a person). One session, component or
//! account, has one [`Sender`].

use jid::{BareJid, FullJid, Jid};
use rxml::{Namespace, NcName};
use xmpp_parsers::bind::BindQuery;
use xmpp_parsers::date::DateTime;
use xmpp_parsers::iq::Iq;
use xmpp_parsers::minidom::Element;
use xmpp_parsers::ping::Ping;
use xmpp_parsers::stanza_error::{DefinedCondition, ErrorType, StanzaError};
use xmpp_parsers::time::TimeQuery;
use xmpp_parsers::version::VersionQuery;

use super::ns;
use crate::presence::{Presence, Resource, State, Texts};

/// What is asked by `<iq type='get'/>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Query {
    /// XEP-0199.
    Ping,
    /// XEP-0092: which server software is this.
    Version,
    /// XEP-0030.
    Info,
    /// XEP-0012.
    Last,
    /// RFC 6121, 2.1.3: one's own contacts, or with XEP-0356 somebody's.
    Roster,
    /// XEP-0030: to one's own bare address, some servers tell which clients are connected.
    Items,
    /// XEP-0202.
    Time,
}

impl Query {
    fn payload(self) -> Element {
        match self {
            Query::Ping => Ping.into(),
            Query::Version => VersionQuery.into(),
            Query::Info => Element::bare("query", ns::DISCO_INFO),
            Query::Last => Element::bare("query", ns::LAST),
            Query::Roster => Element::bare("query", ns::ROSTER),
            Query::Items => Element::bare("query", ns::DISCO_ITEMS),
            Query::Time => TimeQuery.into(),
        }
    }
}

/// Writes our stanzas.
pub struct Sender {
    /// A component names itself on every stanza, an account never does (XEP-0114; RFC 6120, 8.1.2.1). With a resource
    /// of its own: answers come back to it, while what is sent to everybody goes to the bare address.
    pub from: Option<FullJid>,
}

impl Sender {
    pub fn probe(&self, to: &Jid) -> String {
        wire(presence("probe", self.from.clone().map(Jid::from), to))
    }

    /// A component's probe of itself, which comes back to it. COMPAT: not an IQ, since one ejabberd drops those of a
    /// component while mod_privilege is on.
    pub fn echo(&self, name: &str) -> String {
        let Some(from) = self.from.clone().map(Jid::from) else { return String::new() };
        let mut stanza = presence("probe", Some(from.clone()), &from);
        stanza.set_attr(Namespace::NONE, NcName::try_from("id").expect("an XML name"), name);
        wire(stanza)
    }

    pub fn subscribe(&self, to: &BareJid, why: &str) -> String {
        let mut stanza = self.about_consent("subscribe", to);
        let mut status = Element::bare("status", ns::CLIENT);
        status.append_text(why);
        stanza.append_child(status);
        wire(stanza)
    }

    /// We no longer want to see this person.
    pub fn unsubscribe(&self, to: &BareJid) -> String {
        wire(self.about_consent("unsubscribe", to))
    }

    /// This person may see us.
    pub fn subscribed(&self, to: &BareJid) -> String {
        wire(self.about_consent("subscribed", to))
    }

    /// This person no longer wants to see us, or may not.
    pub fn unsubscribed(&self, to: &BareJid) -> String {
        wire(self.about_consent("unsubscribed", to))
    }

    /// Consent is given to the bare address (RFC 6121, 3.1.1).
    fn about_consent(&self, kind: &str, to: &BareJid) -> Element {
        presence(kind, self.from.as_ref().map(|from| from.to_bare().into()), &to.clone().into())
    }

    pub fn message(&self, to: &BareJid, text: &str) -> String {
        let mut stanza = Element::bare("message", ns::CLIENT);
        address(&mut stanza, "chat", self.from.as_ref().map(|from| from.to_bare().into()), &to.clone().into());
        let mut body = Element::bare("body", ns::CLIENT);
        body.append_text(text);
        stanza.append_child(body);
        wire(stanza)
    }

    pub fn query(&self, to: &BareJid, id: &str, query: Query) -> String {
        self.get(to, id, query.payload())
    }

    pub fn get(&self, to: &BareJid, id: &str, payload: Element) -> String {
        let (from, to) = (self.from.clone().map(Jid::from), Some(to.clone().into()));
        wire(Iq::Get { from, to, id: id.to_owned(), payload })
    }

    /// The answer RFC 6120, 8.2.3 owes to every request, from the address it was sent to; a ping gets its pong. No
    /// stranger is told the address of this very session.
    pub fn reply(&self, to: Option<Jid>, asked: Option<Jid>, id: String, payload: &Element) -> String {
        let from = self.from.as_ref().and(asked);
        if Ping::try_from(payload.clone()).is_ok() {
            return wire(Iq::Result { from, to, id, payload: None });
        }
        let error = StanzaError::new(ErrorType::Cancel, DefinedCondition::ServiceUnavailable, "", "");
        let error = StanzaError { texts: Default::default(), ..error };
        wire(Iq::Error { from, to, id, error, payload: None })
    }
}

/// What makes an account visible, with a priority that draws no messages (RFC 6121, 4.7.2.3).
pub const INITIAL_PRESENCE: &str = "<presence><priority>-1</priority></presence>";
/// What makes an account visible that is there for those who write to it. COMPAT: to a negative priority ejabberd does
/// not hand over the requests that waited.
pub const WELCOMING_PRESENCE: &str = "<presence/>";

/// Not the type of xmpp-parsers: that one always writes a `<priority/>`.
fn presence(kind: &str, from: Option<Jid>, to: &Jid) -> Element {
    let mut stanza = Element::bare("presence", ns::CLIENT);
    address(&mut stanza, kind, from, to);
    stanza
}

fn address(stanza: &mut Element, kind: &str, from: Option<Jid>, to: &Jid) {
    let mut set = |name: &str, value: String| {
        let name = NcName::try_from(name).expect("the three names below are XML names");
        stanza.set_attr(Namespace::NONE, name, value);
    };
    if let Some(from) = from {
        set("from", from.to_string());
    }
    set("to", to.to_string());
    set("type", kind.to_owned());
}

/// The request for a resource of the server's choice (RFC 6120, 7).
pub fn bind(id: &str) -> String {
    wire(Iq::from_set(id, BindQuery::new(None)))
}

/// A stanza as it stands in a stream, whose default namespace it takes: component or client.
pub fn wire(stanza: impl Into<Element>) -> String {
    String::from(&stanza.into()).replacen(" xmlns='jabber:client'", "", 1)
}

/// What came in.
#[derive(Debug, PartialEq)]
pub enum Heard {
    /// A resource is there.
    Available { from: Jid, resource: Resource },
    /// A resource, or with a bare JID the person, is gone.
    Unavailable { from: Jid, presence: Presence },
    /// `unsubscribed`: no consent.
    Unsubscribed { from: Jid },
    /// `subscribed`: consent given.
    Subscribed { from: Jid },
    /// `subscribe`: somebody wants to see us.
    Subscribe { from: Jid },
    /// `unsubscribe`: somebody no longer wants to see us.
    Unsubscribe { from: Jid },
    /// Words from one person to another.
    Message { from: Jid, body: String },
    /// XEP-0356: whether this server lets us read the rosters of its users.
    Privilege { from: Jid, roster: bool },
    /// `probe`: a server wants to know our presence, or we did.
    Probe { from: Jid, id: String },
    /// A presence that came back.
    PresenceError { from: Jid, condition: Condition },
    /// The answer to an IQ of ours.
    Reply { from: Option<Jid>, id: String, outcome: Result<Option<Element>, Condition> },
    /// An IQ that wants an answer.
    Request { from: Option<Jid>, to: Option<Jid>, id: String, payload: Element },
    /// Groups' and servers' messages, and what cannot be read.
    Other,
}

impl Heard {
    /// Who sent it, where it can be read.
    pub fn from(&self) -> Option<&Jid> {
        match self {
            Heard::Available { from, .. } | Heard::Unavailable { from, .. } => Some(from),
            Heard::Unsubscribed { from } | Heard::Subscribed { from } => Some(from),
            Heard::Subscribe { from } | Heard::Unsubscribe { from } => Some(from),
            Heard::Message { from, .. } | Heard::Privilege { from, .. } | Heard::Probe { from, .. } => Some(from),
            Heard::PresenceError { from, .. } => Some(from),
            Heard::Reply { from, .. } | Heard::Request { from, .. } => from.as_ref(),
            Heard::Other => None,
        }
    }

    /// Our own server says in the name of somebody, or of his server, that it cannot reach that one. A client speaks by
    /// its full address.
    pub fn is_bounced(&self) -> bool {
        let is_unreachable = match self {
            Heard::PresenceError { condition, .. } => *condition == Condition::Unreachable,
            Heard::Reply { outcome, .. } => matches!(outcome, Err(Condition::Unreachable)),
            _ => false,
        };
        is_unreachable && self.from().is_some_and(|from| from.resource().is_none())
    }
}

/// A stanza error (RFC 6120, 8.3.3), as far as it makes a difference here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// We may not know.
    Forbidden,
    /// The other server, or the component, cannot be reached.
    Unreachable,
    /// There is no such address.
    NotFound,
    /// Anything else says nothing.
    Other,
}

impl Condition {
    fn of(stanza: &Element) -> Condition {
        let Some(error) = stanza.get_child("error", ns::CLIENT) else { return Condition::Other };
        let condition = error.children().find(|c| c.has_ns(ns::STANZAS) && c.name() != "text");
        match condition.map_or("", Element::name) {
            "forbidden" | "not-authorized" | "subscription-required" => Condition::Forbidden,
            "remote-server-not-found" | "remote-server-timeout" => Condition::Unreachable,
            "item-not-found" | "gone" => Condition::NotFound,
            _ => Condition::Other,
        }
    }
}

/// Reads one stanza.
pub fn hear(stanza: Element) -> Heard {
    let from = stanza.attr("from").and_then(|from| Jid::new(from).ok());
    if stanza.is("iq", ns::CLIENT) {
        return hear_iq(&stanza, from);
    }
    let Some(from) = from else { return Heard::Other };
    if stanza.is("message", ns::CLIENT) {
        return hear_message(&stanza, from);
    }
    if !stanza.is("presence", ns::CLIENT) {
        return Heard::Other;
    }
    // The type wins over the children: jabberd2 leaves an old <show/> in an unavailable presence.
    match stanza.attr("type") {
        None => Heard::Available { resource: resource(&stanza, &from), from },
        Some("unavailable") => Heard::Unavailable {
            presence: Presence { since: stamp(&stanza), ..Presence::offline(texts(&stanza)) },
            from,
        },
        Some("unsubscribed") => Heard::Unsubscribed { from },
        Some("subscribed") => Heard::Subscribed { from },
        Some("subscribe") => Heard::Subscribe { from },
        Some("unsubscribe") => Heard::Unsubscribe { from },
        Some("probe") => Heard::Probe { id: stanza.attr("id").unwrap_or_default().to_owned(), from },
        Some("error") => Heard::PresenceError { condition: Condition::of(&stanza), from },
        Some(_) => Heard::Other,
    }
}

fn hear_message(stanza: &Element, from: Jid) -> Heard {
    // One of each version of XEP-0356.
    let privilege = ns::PRIVILEGES.iter().find_map(|namespace| stanza.get_child("privilege", *namespace));
    if let Some(privilege) = privilege {
        let roster = privilege.children().filter(|perm| perm.name() == "perm" && perm.attr("access") == Some("roster"));
        let roster = roster.filter_map(|perm| perm.attr("type")).any(|kind| matches!(kind, "get" | "both"));
        return Heard::Privilege { from, roster };
    }
    let body = stanza.get_child("body", ns::CLIENT).map(Element::text);
    match (stanza.attr("type"), body) {
        (None | Some("chat" | "normal"), Some(body)) => Heard::Message { from, body },
        _ => Heard::Other,
    }
}

fn hear_iq(stanza: &Element, from: Option<Jid>) -> Heard {
    let Some(id) = stanza.attr("id").map(str::to_owned) else { return Heard::Other };
    let payload = stanza.children().next().cloned();
    match (stanza.attr("type"), payload) {
        (Some("result"), payload) => Heard::Reply { from, id, outcome: Ok(payload) },
        (Some("error"), _) => Heard::Reply { from, id, outcome: Err(Condition::of(stanza)) },
        (Some("get" | "set"), Some(payload)) => {
            let to = stanza.attr("to").and_then(|to| Jid::new(to).ok());
            Heard::Request { from, to, id, payload }
        }
        _ => Heard::Other,
    }
}

fn resource(stanza: &Element, from: &Jid) -> Resource {
    let child = |name| stanza.get_child(name, ns::CLIENT).map(Element::text);
    let show = child("show").unwrap_or_default();
    let state = match show.trim() {
        "chat" => State::Chat,
        "away" => State::Away,
        "xa" => State::Xa,
        "dnd" => State::Dnd,
        _ => State::Available,
    };
    let priority = child("priority").and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    let name = from.resource().map(|r| r.to_string()).unwrap_or_default();
    Resource { name, state, priority, texts: texts(stanza), stamp: stamp(stanza), idle: idle(stanza) }
}

fn texts(stanza: &Element) -> Texts {
    let mut texts = Texts::default();
    for status in stanza.children().filter(|c| c.is("status", ns::CLIENT)) {
        let text = status.text();
        // The language of the stream that <presence/> inherits is the server's guess: only the status' own counts.
        let lang = status.attr_ns(ns::XML, "lang").unwrap_or("");
        if !made_by_server(&text) {
            texts.insert(lang, &text);
        }
    }
    texts
}

/// COMPAT: ejabberd and Prosody write the reason of a disconnect where the user's own words belong.
pub fn made_by_server(text: &str) -> bool {
    const REASONS: [&str; 6] = [
        "Stream reset by peer",
        "Stream closed by ",
        "Connection failed",
        "Registered but didn't login",
        "Replaced by new connection",
        "Disconnected: ",
    ];
    REASONS.iter().any(|reason| text.starts_with(reason))
}

/// XEP-0319: since when nobody has touched the client. Seconds since 1970.
fn idle(stanza: &Element) -> Option<u64> {
    epoch_s(stanza.get_child("idle", ns::IDLE)?.attr("since")?)
}

fn epoch_s(stamp: &str) -> Option<u64> {
    stamp.parse::<DateTime>().ok().and_then(|time| u64::try_from(time.0.timestamp()).ok())
}

/// When this presence was set: XEP-0203, or the older XEP-0091. Seconds since 1970.
fn stamp(stanza: &Element) -> Option<u64> {
    let at = |name, namespace| stanza.get_child(name, namespace).and_then(|delay| delay.attr("stamp"));
    let stamp = match (at("delay", ns::DELAY), at("x", ns::OLD_DELAY)) {
        (Some(stamp), _) => stamp.to_owned(),
        (None, Some(stamp)) if stamp.is_ascii() && stamp.len() >= 17 => {
            format!("{}-{}-{}Z", &stamp[..4], &stamp[4..6], &stamp[6..17])
        }
        _ => return None,
    };
    epoch_s(&stamp)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(xml: &str) -> Heard {
        let xml = xml.replacen(' ', " xmlns='jabber:client' ", 1);
        hear(xml.parse().unwrap_or_else(|error| panic!("{xml}: {error}")))
    }

    fn jid(text: &str) -> Jid {
        Jid::new(text).expect("a JID")
    }

    fn bare(text: &str) -> BareJid {
        BareJid::new(text).expect("a bare JID")
    }

    #[test]
    fn what_we_send_takes_the_namespace_of_the_stream() {
        let component = Sender { from: Some(FullJid::new("p.example.com/r").expect("a full JID")) };
        let account = Sender { from: None };
        let bob = bare("bob@example.com");
        for (stanza, expected) in [
            (
                component.probe(&bob.clone().into()),
                "<presence from='p.example.com/r' to='bob@example.com' type='probe'/>",
            ),
            (
                component.subscribe(&bob, "Hi"),
                "<presence from='p.example.com' to='bob@example.com' type='subscribe'><status>Hi</status></presence>",
            ),
            (account.probe(&jid("bob@example.com/home")), "<presence to='bob@example.com/home' type='probe'/>"),
            (component.subscribed(&bob), "<presence from='p.example.com' to='bob@example.com' type='subscribed'/>"),
            (account.unsubscribed(&bob), "<presence to='bob@example.com' type='unsubscribed'/>"),
            (account.unsubscribe(&bob), "<presence to='bob@example.com' type='unsubscribe'/>"),
            (
                component.message(&bob, "a < b"),
                "<message from='p.example.com' to='bob@example.com' type='chat'><body>a &lt; b</body></message>",
            ),
            (
                account.subscribe(&bob, "For <web>"),
                "<presence to='bob@example.com' type='subscribe'><status>For &lt;web&gt;</status></presence>",
            ),
            (
                component.query(&bare("example.com"), "p1", Query::Ping),
                "<iq from='p.example.com/r' id='p1' to='example.com' type='get'><ping xmlns='urn:xmpp:ping'/></iq>",
            ),
            (
                account.query(&bob, "l1", Query::Last),
                "<iq id='l1' to='bob@example.com' type='get'><query xmlns='jabber:iq:last'/></iq>",
            ),
            (bind("b"), "<iq id='b' type='set'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>"),
        ] {
            assert_eq!(stanza, expected);
        }
    }

    #[test]
    fn requests_are_answered() {
        let sender = Sender { from: None };
        let reply = |payload: Element| sender.reply(Some(jid("example.com")), None, "1".into(), &payload);
        assert_eq!(reply(Ping.into()), "<iq id='1' to='example.com' type='result'/>");
        assert_eq!(
            reply(Query::Info.payload()),
            "<iq id='1' to='example.com' type='error'><error xmlns='jabber:client' type='cancel'>\
             <service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>"
                .replace(" xmlns='jabber:client'", "")
        );
    }

    #[test]
    fn a_presence_is_read_leniently() {
        let heard = read(
            "<presence from='bob@example.com/r1'><priority> 5 </priority><show>away</show>\
             <status xml:lang='de'>Mittag</status><status>Lunch</status>\
             <idle xmlns='urn:xmpp:idle:1' since='1970-01-01T02:00:00+01:00'/>\
             <delay xmlns='urn:xmpp:delay' stamp='1970-01-02T00:00:00Z'/></presence>",
        );
        let mut texts = Texts::default();
        texts.insert("de", "Mittag");
        texts.insert("", "Lunch");
        let resource = Resource {
            name: "r1".into(),
            state: State::Away,
            priority: 5,
            texts,
            stamp: Some(86400),
            idle: Some(3600),
        };
        assert_eq!(heard, Heard::Available { from: jid("bob@example.com/r1"), resource });

        let careless = read("<presence from='bob@example.com/r1'><show>busy</show><priority>300</priority></presence>");
        let Heard::Available { resource, .. } = careless else { panic!("{careless:?}") };
        assert_eq!((resource.state, resource.priority), (State::Available, 0));
    }

    #[test]
    fn both_delay_formats_are_read() {
        for (delay, expected) in [
            ("<x xmlns='jabber:x:delay' stamp='19700102T00:00:10'/>", Some(86410)),
            ("<delay xmlns='urn:xmpp:delay' stamp='1970-01-01T01:00:00.5+01:00'/>", Some(0)),
            ("<x xmlns='jabber:x:delay' stamp='yesterday evening'/>", None),
            ("<x xmlns='jabber:x:delay' stamp='1'/>", None),
            ("<delay xmlns='urn:xmpp:delay'/>", None),
        ] {
            let heard = read(&format!("<presence from='a@b/c'>{delay}</presence>"));
            let Heard::Available { resource, .. } = heard else { panic!("{heard:?}") };
            assert_eq!(resource.stamp, expected, "{delay}");
        }
    }

    #[test]
    fn the_type_wins_over_the_children() {
        let heard = read("<presence from='a@b' type='unavailable'><show>away</show><status>bye</status></presence>");
        let mut texts = Texts::default();
        texts.insert("", "bye");
        assert_eq!(heard, Heard::Unavailable { from: jid("a@b"), presence: Presence::offline(texts) });
    }

    #[test]
    fn words_of_the_server_are_not_the_users() {
        let heard = read("<presence from='a@b' type='unavailable'><status>Disconnected: closed</status></presence>");
        assert_eq!(heard, Heard::Unavailable { from: jid("a@b"), presence: Presence::bare(State::Offline) });
    }

    #[test]
    fn errors_are_sorted_by_what_they_mean() {
        for (condition, meaning) in [
            ("forbidden", Condition::Forbidden),
            ("not-authorized", Condition::Forbidden),
            ("subscription-required", Condition::Forbidden),
            ("remote-server-timeout", Condition::Unreachable),
            ("item-not-found", Condition::NotFound),
            ("service-unavailable", Condition::Other),
            ("made-up", Condition::Other),
        ] {
            let error = format!(
                "<error type='cancel'><text xmlns='{0}'>x</text><{condition} xmlns='{0}'/></error>",
                ns::STANZAS
            );
            let heard = read(&format!("<presence from='a@b' type='error'>{error}</presence>"));
            assert_eq!(heard, Heard::PresenceError { from: jid("a@b"), condition: meaning });
            let heard = read(&format!("<iq from='a@b' id='7' type='error'>{error}</iq>"));
            assert_eq!(heard, Heard::Reply { from: Some(jid("a@b")), id: "7".into(), outcome: Err(meaning) });
        }
    }

    #[test]
    fn what_does_not_concern_us_is_passed_over() {
        for xml in [
            "<message from='a@b' type='groupchat'><body>hi</body></message>",
            "<message from='a@b' type='error'><body>hi</body></message>",
            "<message from='a@b'><subject>hi</subject></message>",
            "<message type='chat'><body>hi</body></message>",
            "<presence from='a@b' type='odd'/>",
            "<presence type='unavailable'/>",
            "<presence from='@@'/>",
            "<iq from='a@b' type='result'/>",
            "<iq from='a@b' id='1' type='get'/>",
            "<iq from='a@b' id='1'/>",
            "<unheard of='it'/>",
        ] {
            assert_eq!(read(xml), Heard::Other, "{xml}");
        }
    }

    #[test]
    fn what_people_want_of_us() {
        let from = jid("a@b/c");
        for (xml, expected) in [
            ("<presence from='a@b/c' type='subscribe'/>", Heard::Subscribe { from: from.clone() }),
            ("<presence from='a@b/c' type='unsubscribe'/>", Heard::Unsubscribe { from: from.clone() }),
            (
                "<message from='a@b/c' type='chat'><body>off</body><body xml:lang='de'>aus</body></message>",
                Heard::Message { from: from.clone(), body: "off".into() },
            ),
        ] {
            assert_eq!(read(xml), expected);
        }
    }

    #[test]
    fn privileges_are_noticed() {
        for (version, perms, roster) in [
            (2, "<perm type='get' access='roster'/><perm type='roster' access='presence'/>", true),
            (1, "<perm type='both' access='roster'/>", true),
            (1, "<perm type='none' access='roster'/><perm type='none' access='message'/>", false),
            (2, "<perm type='roster' access='presence'/>", false),
        ] {
            let privilege = format!("<privilege xmlns='urn:xmpp:privilege:{version}'>{perms}</privilege>");
            let heard = read(&format!("<message from='b' to='p.b'>{privilege}</message>"));
            assert_eq!(heard, Heard::Privilege { from: jid("b"), roster });
        }
    }
}
