//! The picture of a person, by PEP (XEP-0084) or else from his vCard (XEP-0054). Both are asked for in one write, and the
//! picture itself where PEP has one; what comes too late, too large or broken is no picture. Only for people whose
//! presence was allowed before. The bytes are nobody's yet: what they hold is for whoever shows them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jid::BareJid;
use rxml::{Namespace, NcName};
use tokio::time::Instant;
use xmpp_parsers::minidom::Element;

use super::{Answer, ns};
use crate::presence::{PICTURE_BYTES, Picture, State};

/// Bytes of a stanza that may hold a picture: in base64, in lines, and what else a vCard says.
pub const AVATAR_STANZA_LIMIT: usize = 360 * 1024;
/// What fetching one may bring in: a picture by PEP, one in a vCard, and the list before them.
pub const AVATAR_BYTES: usize = 2 * AVATAR_STANZA_LIMIT + super::stream::STANZA_LIMIT;

/// The longest id of an item; by XEP-0084 it is a hash of 40 digits.
const ITEM_ID_BYTES: usize = 1024;

/// The picture formats that are taken (XEP-0084, 4.2.1, as far as they can be drawn).
const TYPES: [&str; 4] = ["image/png", "image/jpeg", "image/gif", "image/webp"];

/// Whether somebody with this answer may be asked for his picture.
pub fn is_allowed(answer: &Answer) -> bool {
    !matches!(answer.presence.state, State::Forbidden | State::Unknown)
}

/// Which of the IQs that fetch a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// XEP-0084: which pictures there are.
    Metadata,
    /// XEP-0084: one of them.
    Data,
    Vcard,
}

/// What one of the two ways has brought.
#[derive(Debug, PartialEq)]
enum Way {
    Awaited,
    Came(Option<Picture>),
}

/// One picture on its way.
#[derive(Debug)]
struct Fetch {
    id: u64,
    jid: BareJid,
    until: Instant,
    pep: Way,
    vcard: Way,
}

/// All pictures that a session fetches.
#[derive(Debug, Default)]
pub struct Avatars(Vec<Fetch>);

impl Avatars {
    /// Both ways are asked.
    pub fn begin(&mut self, id: u64, jid: BareJid, until: Instant) {
        self.0.push(Fetch { id, jid, until, pep: Way::Awaited, vcard: Way::Awaited });
    }

    /// An answer, `None` for an error. Returns the item of PEP to ask for next, and of whom.
    pub fn heard(&mut self, id: u64, part: Part, payload: Option<&Element>) -> Option<(BareJid, String)> {
        let fetch = self.0.iter_mut().find(|fetch| fetch.id == id)?;
        match (part, payload) {
            (Part::Metadata, Some(payload)) => match published(payload) {
                Some(item) => return Some((fetch.jid.clone(), item)),
                None => fetch.pep = Way::Came(None),
            },
            (Part::Metadata, None) => fetch.pep = Way::Came(None),
            (Part::Data, payload) => fetch.pep = Way::Came(payload.and_then(data)),
            (Part::Vcard, payload) => fetch.vcard = Way::Came(payload.and_then(photo)),
        }
        None
    }

    /// When the next one may be ready.
    pub fn next(&self, now: Instant) -> Option<Instant> {
        self.0.iter().map(|fetch| if fetch.is_complete() { now } else { fetch.until }).min()
    }

    /// Those that are ready.
    pub fn ready(&mut self, now: Instant) -> Vec<(u64, Option<Picture>)> {
        let ready = self.0.extract_if(.., |fetch| fetch.is_complete() || fetch.until <= now);
        ready.map(|fetch| (fetch.id, fetch.picture())).collect()
    }
}

impl Fetch {
    /// The vCard counts only where PEP has nothing.
    fn is_complete(&self) -> bool {
        match (&self.pep, &self.vcard) {
            (Way::Came(Some(_)), _) | (Way::Came(None), Way::Came(_)) => true,
            (Way::Awaited, _) | (_, Way::Awaited) => false,
        }
    }

    fn picture(self) -> Option<Picture> {
        let came = |way| if let Way::Came(picture) = way { picture } else { None };
        came(self.pep).or_else(|| came(self.vcard))
    }
}

/// XEP-0060, 6.5.7: the newest item of the list of pictures.
pub fn metadata_request() -> Element {
    let mut items = items(ns::AVATAR_METADATA);
    set(&mut items, "max_items", "1");
    pubsub(items)
}

/// XEP-0060, 6.5.8: one item.
pub fn data_request(id: &str) -> Element {
    let mut item = Element::bare("item", ns::PUBSUB);
    set(&mut item, "id", id);
    let mut items = items(ns::AVATAR_DATA);
    items.append_child(item);
    pubsub(items)
}

/// XEP-0054, 3.3.
pub fn vcard_request() -> Element {
    Element::bare("vCard", ns::VCARD)
}

fn items(node: &str) -> Element {
    let mut items = Element::bare("items", ns::PUBSUB);
    set(&mut items, "node", node);
    items
}

fn pubsub(items: Element) -> Element {
    let mut pubsub = Element::bare("pubsub", ns::PUBSUB);
    pubsub.append_child(items);
    pubsub
}

fn set(element: &mut Element, name: &str, value: &str) {
    let name = NcName::try_from(name).expect("the three names above are XML names");
    element.set_attr(Namespace::NONE, name, value.to_owned());
}

/// The picture to fetch: the first that lies on the server itself, in a format and of a size that we take. One with a
/// `url` lies elsewhere, and nothing is fetched from an address that a person gave.
fn published(payload: &Element) -> Option<String> {
    let metadata = first_item(payload, ns::AVATAR_METADATA)?.get_child("metadata", ns::AVATAR_METADATA)?;
    let info = metadata.children().filter(|child| child.is("info", ns::AVATAR_METADATA)).find(|info| {
        let size = info.attr("bytes").and_then(|bytes| bytes.parse().ok()).unwrap_or(0_usize);
        let known = info.attr("type").is_some_and(|kind| TYPES.contains(&kind));
        known && size <= PICTURE_BYTES && info.attr("url").is_none()
    });
    info?.attr("id").filter(|id| (1..=ITEM_ID_BYTES).contains(&id.len())).map(str::to_owned)
}

fn data(payload: &Element) -> Option<Picture> {
    decoded(&first_item(payload, ns::AVATAR_DATA)?.get_child("data", ns::AVATAR_DATA)?.text())
}

fn photo(payload: &Element) -> Option<Picture> {
    let photo = Some(payload).filter(|vcard| vcard.is("vCard", ns::VCARD))?.get_child("PHOTO", ns::VCARD)?;
    decoded(&photo.get_child("BINVAL", ns::VCARD)?.text())
}

fn first_item<'a>(payload: &'a Element, node: &str) -> Option<&'a Element> {
    let pubsub = Some(payload).filter(|pubsub| pubsub.is("pubsub", ns::PUBSUB))?;
    let items = pubsub.get_child("items", ns::PUBSUB).filter(|items| items.attr("node") == Some(node))?;
    items.get_child("item", ns::PUBSUB)
}

/// Base64 in lines, as vCards have it.
fn decoded(text: &str) -> Option<Picture> {
    let text: String = text.split_ascii_whitespace().collect();
    Picture::new(&BASE64.decode(text).ok()?)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn xml(text: &str) -> Element {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn item(node: &str, content: &str) -> Element {
        let items = format!("<items node='{node}'><item id='x'>{content}</item></items>");
        xml(&format!("<pubsub xmlns='{}'>{items}</pubsub>", ns::PUBSUB))
    }

    fn metadata(infos: &str) -> Element {
        item(ns::AVATAR_METADATA, &format!("<metadata xmlns='{}'>{infos}</metadata>", ns::AVATAR_METADATA))
    }

    fn published_data(base64: &str) -> Element {
        item(ns::AVATAR_DATA, &format!("<data xmlns='{}'>{base64}</data>", ns::AVATAR_DATA))
    }

    fn vcard(content: &str) -> Element {
        xml(&format!("<vCard xmlns='vcard-temp'><FN>Bob</FN>{content}</vCard>"))
    }

    fn binval(base64: &str) -> Element {
        vcard(&format!("<PHOTO><TYPE>image/png</TYPE><BINVAL>{base64}</BINVAL></PHOTO>"))
    }

    fn picture(bytes: &[u8]) -> Option<Picture> {
        Picture::new(bytes)
    }

    #[test]
    fn which_picture_is_fetched() {
        let png = "<info id='p' type='image/png' bytes='9'/>";
        for (infos, id) in [
            (png, Some("p")),
            ("<info id='j' type='image/jpeg'/>", Some("j")),
            ("<info id='g' type='image/gif' bytes='262144'/>", Some("g")),
            ("<info id='w' type='image/webp' bytes='many'/>", Some("w")),
            ("<info id='g' type='image/gif' bytes='262145'/>", None),
            ("<info id='s' type='image/svg+xml' bytes='9'/>", None),
            ("<info id='u' type='image/png' bytes='9' url='http://a.example/'/>", None),
            ("<info id='' type='image/png' bytes='9'/>", None),
            ("<info type='image/png' bytes='9'/>", None),
            (&format!("<info id='{}' type='image/png'/>", "x".repeat(ITEM_ID_BYTES)), Some(&"x".repeat(ITEM_ID_BYTES))),
            (&format!("<info id='{}' type='image/png'/>", "x".repeat(ITEM_ID_BYTES + 1)), None),
            ("<info id='n'/>", None),
            ("", None),
            (&format!("<info id='u' type='image/png' url='x'/><info id='b' type='image/bmp'/>{png}"), Some("p")),
        ] {
            assert_eq!(published(&metadata(infos)).as_deref(), id, "{infos}");
        }
        let elsewhere = item(ns::AVATAR_DATA, &format!("<metadata xmlns='{}'>{png}</metadata>", ns::AVATAR_METADATA));
        assert_eq!(published(&elsewhere), None, "another node");
        assert_eq!(published(&vcard("")), None);
        assert_eq!(published(&xml(&format!("<pubsub xmlns='{}'/>", ns::PUBSUB))), None);
    }

    #[test]
    fn pictures_are_base64_in_lines_or_nothing() {
        for (text, bytes) in [
            ("AAEC", Some(&[0, 1, 2][..])),
            (" AA\r\nEC\n\t", Some(&[0, 1, 2])),
            ("AAE=", Some(&[0, 1])),
            ("", None),
            ("AAE", None),
            ("AA!C", None),
            ("AAEC AAE= AAEC", None),
        ] {
            let expected = bytes.and_then(picture);
            assert_eq!(data(&published_data(text)), expected, "{text:?} by PEP");
            assert_eq!(photo(&binval(text)), expected, "{text:?} in a vCard");
        }
        for none in ["", "<PHOTO/>", "<PHOTO><EXTVAL>http://a.example/</EXTVAL></PHOTO>"] {
            assert_eq!(photo(&vcard(none)), None, "{none}");
        }
        assert_eq!(photo(&published_data("AAEC")), None);
        assert_eq!(data(&binval("AAEC")), None);
    }

    #[test]
    fn a_picture_has_a_limit_and_its_stanza_room_for_it() {
        let text = |bytes: usize| {
            let lines = BASE64.encode(vec![7; bytes]).into_bytes();
            let lines: Vec<_> = lines.chunks(76).map(|line| String::from_utf8_lossy(line)).collect();
            lines.join("\r\n")
        };
        assert_eq!(photo(&binval(&text(PICTURE_BYTES))), picture(&vec![7; PICTURE_BYTES]));
        assert_eq!(photo(&binval(&text(PICTURE_BYTES + 1))), None);
        assert!(text(PICTURE_BYTES).len() + 8 * 1024 < AVATAR_STANZA_LIMIT);
    }

    /// What came, in its order, and what is ready then: `None` is not yet.
    #[test]
    fn pep_counts_before_the_vcard() {
        use Part::{Data, Metadata, Vcard};
        let (pep, card) = (picture(&[0, 1, 2]), picture(&[1]));
        let listed = || Some(metadata("<info id='p' type='image/png'/>"));
        let (good, bad) = (|| Some(published_data("AAEC")), || Some(published_data("!")));
        let photo = || Some(binval("AQ=="));
        type Row = (Vec<(Part, Option<Element>)>, Option<Option<Picture>>);
        let rows: [Row; 9] = [
            (vec![], None),
            (vec![(Metadata, listed()), (Data, good())], Some(pep.clone())),
            (vec![(Vcard, photo()), (Metadata, listed()), (Data, good())], Some(pep)),
            (vec![(Metadata, listed()), (Vcard, photo())], None),
            (vec![(Metadata, listed()), (Vcard, photo()), (Data, bad())], Some(card.clone())),
            (vec![(Metadata, None), (Vcard, photo())], Some(card.clone())),
            (vec![(Vcard, photo()), (Metadata, Some(metadata("")))], Some(card.clone())),
            (vec![(Metadata, None), (Vcard, None)], Some(None)),
            (vec![(Metadata, None)], None),
        ];
        let (now, jid) = (Instant::now(), BareJid::new("bob@example.com").expect("a bare JID"));
        let until = now + Duration::from_secs(5);
        for (came, expected) in rows {
            let mut avatars = Avatars::default();
            avatars.begin(1, jid.clone(), until);
            for (part, payload) in &came {
                let next = avatars.heard(1, *part, payload.as_ref());
                let asks = *part == Metadata && *payload == listed();
                assert_eq!(next, asks.then(|| (jid.clone(), "p".to_owned())), "{came:?}");
            }
            let next = if expected.is_some() { now } else { until };
            assert_eq!(avatars.next(now), Some(next), "{came:?}");
            assert_eq!(avatars.ready(now), expected.map(|picture| (1, picture)).into_iter().collect::<Vec<_>>());
        }
        let mut late = Avatars::default();
        late.begin(1, jid, until);
        late.heard(1, Metadata, listed().as_ref());
        late.heard(1, Vcard, photo().as_ref());
        assert_eq!(late.ready(until), [(1, card)], "what has come by then");
        assert_eq!((late.heard(1, Data, None), late.next(until)), (None, None));
    }
}
