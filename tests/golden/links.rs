//! Answers to tokens: they name no address, and whoever has a wrong one learns nothing.

use webpresence::signature::{Link, seal};

use jid::BareJid;

use super::*;

fn keys() -> SigningKeys {
    SigningKeys { current: Secret::new("k".repeat(32)), old: None, days: 7 }
}

/// As [`open_site`], but it knows tokens.
fn site() -> Config {
    let mut config = open_site();
    config.identities[0].access.requester = Requester::Signed(keys());
    config
}

fn token(kind: &str, exp_s: u64) -> String {
    let site = BareJid::new("presence.example.com").expect("a constant address");
    let link = Link::of(|name| match name {
        "jid" => Some("alice@example.com".to_owned()),
        "req_jid" => Some("bob@example.com".to_owned()),
        "type" => Some(kind.to_owned()),
        _ => None,
    });
    seal(&keys(), &site, &link, exp_s, [0; 12]).expect("it is short enough")
}

#[test]
fn answers_to_tokens_name_nobody() {
    let mut all = String::new();
    for kind in ["xml", "json"] {
        for (name, found) in [
            ("away", known(State::Away, "Lunch", 5)),
            ("offline", known(State::Offline, "", 0)),
            ("forbidden", known(State::Forbidden, "", 0)),
            ("unknown", nothing()),
        ] {
            let (response, asked) = ask(&site(), &get(&format!("token={}", token(kind, NOW_S))), found);
            assert_eq!(asked.as_deref(), Some("alice@example.com"), "{kind} {name}");
            all += &format!("### {kind}, {name}\n{}\n", written(&response));
        }
    }
    for address in ["alice", "bob", "example.com"] {
        assert!(!all.contains(address), "{address} in {all}");
    }
    check("tokens.txt", &all);
}

/// Byte for byte and header for header what a person is who may not be seen.
#[test]
fn a_token_that_does_not_open_is_a_refusal_without_a_lookup() {
    for kind in ["image", "text", "xml", "json"] {
        let refused = told(&site(), &get(&format!("token={}", token(kind, NOW_S))), known(State::Forbidden, "", 0));
        for text in [token(kind, NOW_S - 1), "x".to_owned(), "%FF".to_owned()] {
            let query = format!("token={text}&jid=alice@example.com&type={kind}");
            let (response, asked) = ask(&site(), &get(&query), known(State::Away, "", 0));
            assert_eq!((&response, asked), (&refused, None), "{query}");
        }
    }
}
