//! Pictures that people publish from their own clients, by PEP and in their vCard, as the web shows them: drawn anew, and
//! only as long as they let themselves be seen.

use std::io::Cursor;

use image::{DynamicImage, GrayImage, ImageFormat, Rgb, RgbImage};

use crate::rig::eventually;
use crate::rig::fastcgi::Connection;
use crate::rig::users::Shown;
use crate::rig::webpresence::Webpresence;
use crate::rig::xmpp::{DOMAIN, Identity, Kind};
use crate::world::{Visit, consent, next_number, visit, visit_newer};

/// Nothing is older than a second.
const CACHE: &str = "ttl = 1\nrefresh = 0\nstale = 0";
const RED: Rgb<u8> = Rgb([255, 0, 0]);
const BLUE: Rgb<u8> = Rgb([0, 0, 255]);

fn file(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.into().write_to(&mut bytes, format).expect("memory takes everything");
    bytes.into_inner()
}

fn plain(colour: Rgb<u8>, format: ImageFormat) -> Vec<u8> {
    file(RgbImage::from_pixel(96, 64, colour), format)
}

/// Somebody who has let a new identity of each sort see him.
fn known_to_both(world: &Visit, user: &str) -> [Webpresence; 2] {
    world.server.register(user);
    world.users.login(&format!("{user}/home"), Shown { show: "away", texts: &[], priority: 0 });
    let number = next_number();
    let (component, account) = (Identity::Component(number), Identity::Account(number));
    world.server.register(account.jid().split('@').next().expect("an account"));
    [component, account].map(|identity| {
        let installed = Webpresence::tuned(&world.server, identity, "", CACHE);
        consent(&world.users, &installed, identity, &[user]);
        installed
    })
}

fn picture(installed: &Webpresence, user: &str, kind: &str) -> Vec<u8> {
    let answer = installed.get(&format!("jid={user}@{DOMAIN}&type={kind}&size=32"));
    assert_eq!((answer.status, answer.header("Content-Type")), (200, Some("image/png")), "{answer:?}");
    answer.body
}

/// The colour of a picture of 32 by 32 pixels that has only one.
fn colour(bytes: &[u8]) -> Rgb<u8> {
    let image = image::load_from_memory(bytes).expect("a picture").into_rgb8();
    assert_eq!(image.dimensions(), (32, 32));
    let first = *image.get_pixel(0, 0);
    let near = |pixel: &Rgb<u8>| pixel.0.iter().zip(first.0).all(|(one, other)| one.abs_diff(other) < 8);
    assert!(image.pixels().all(near));
    Rgb(first.0.map(|part| if part > 127 { 255 } else { 0 }))
}

fn published(world: Visit, user: &str) {
    let home = format!("{user}/home");
    let both = known_to_both(&world, user);
    for installed in &both {
        assert_eq!(picture(installed, user, "avatar"), picture(installed, user, "image"), "nothing is published");
    }
    world.users.publish(&home, "vcard", "image/jpeg", &plain(BLUE, ImageFormat::Jpeg));
    for installed in &both {
        assert_eq!(colour(&picture(installed, user, "avatar")), BLUE, "his vCard, {:?}", installed.identity);
    }
    world.users.publish(&home, "pep", "image/png", &plain(RED, ImageFormat::Png));
    let serves = both.each_ref().map(Webpresence::serve);
    for (installed, serve) in both.iter().zip(&serves) {
        let drawn = picture(installed, user, "avatar");
        assert_eq!(colour(&drawn), RED, "PEP, {:?}", installed.identity);
        let mut connection = Connection::open(&serve.socket);
        let mut ask = |kind: &str| connection.ask(&format!("jid={user}@{DOMAIN}&type={kind}&size=32")).body;
        assert_eq!(ask("avatar"), drawn);
        assert_ne!(ask("image"), drawn);
        let private = format!("{}[privacy]\nshow_avatar = no\n", installed.configuration());
        let open = installed.configuration();
        installed.configure(&private);
        assert_eq!(picture(installed, user, "avatar"), picture(installed, user, "image"), "the admin shows none");
        installed.configure(&open);
        world.users.revoke(&home, &installed.identity.jid());
        eventually("his picture goes with his consent", || (ask("avatar") != drawn).then_some(()));
        assert_eq!(ask("avatar"), ask("image"));
        assert_eq!(picture(installed, user, "avatar"), picture(installed, "nobody", "image"));
    }
}

#[test]
fn prosody_published() {
    published(visit(Kind::Prosody), "painted");
}

#[test]
fn newer_prosody_published() {
    published(visit_newer(Kind::Prosody), "painted");
}

#[test]
fn ejabberd_published() {
    published(visit(Kind::Ejabberd), "painted");
}

#[test]
fn newer_ejabberd_published() {
    published(visit_newer(Kind::Ejabberd), "painted");
}

/// What is no picture, or would take too much to decode, is as none.
fn hostile(kind: Kind) {
    let world = visit(kind);
    let [installed, _] = known_to_both(&world, "trickster");
    let icon = picture(&installed, "trickster", "image");
    let whole = plain(RED, ImageFormat::Png);
    let wide = file(GrayImage::new(4100, 100), ImageFormat::Png);
    for (name, kind, bytes) in [
        ("too wide", "image/png", &wide[..]),
        ("half of one", "image/png", &whole[..whole.len() / 2]),
        ("a script", "image/png", b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"),
        ("another type", "image/svg+xml", &whole),
    ] {
        world.users.publish("trickster/home", "pep", kind, bytes);
        // Prosody shows the same in the vCard, whatever type it has.
        let shown = picture(&installed, "trickster", "avatar");
        assert!(shown == icon || name == "another type" && colour(&shown) == RED, "{name}");
    }
    world.users.publish("trickster/home", "pep", "image/gif", &whole);
    assert_eq!(colour(&picture(&installed, "trickster", "avatar")), RED, "what it is, not what he says it is");
    let asker = installed.identity.jid();
    for (word, is_shown) in [("coarse", false), ("on", true), ("text off", true), ("off", false)] {
        // Whoever holds a session hears it.
        let listening = installed.listen();
        eventually("the session is held", || listening.log().contains("people can add it").then_some(()));
        world.users.say("trickster/home", &asker, word);
        drop(listening);
        let avatar = picture(&installed, "trickster", "avatar");
        let icon = picture(&installed, "trickster", "image");
        assert_eq!(avatar != icon, is_shown, "{word}");
    }
}

#[test]
fn prosody_hostile() {
    hostile(Kind::Prosody);
}

#[test]
fn ejabberd_hostile() {
    hostile(Kind::Ejabberd);
}
