//! Patterns of addresses, and the lines of `[viewers]` and `[privacy]` that are made of them: text → types, or what is
//! wrong. Knows neither keys nor lines, as `values`.

use std::collections::{HashMap, HashSet};

use super::values::{domain, domain_pattern, items, jid, yes_no};
use super::{Changes, JidPattern};

/// What the groups of one section hold, by their names in lower case, with the `@`.
pub(super) type Groups = HashMap<String, Vec<JidPattern>>;

/// People or hosts.
pub(super) fn pattern(text: &str) -> Result<JidPattern, &'static str> {
    const WRONG: &str = "is not a pattern";
    if let Some(everybody) = text.strip_prefix("*@") {
        return domain_pattern(everybody).map(JidPattern::Everybody).map_err(|_| WRONG);
    }
    if let Some(parent) = text.strip_prefix("*.") {
        return domain(parent).map(JidPattern::HostsBelow).map_err(|_| WRONG);
    }
    // A star is allowed in a name, but who writes one expects it to stand for anything.
    if text.contains('*') { Err(WRONG) } else { jid(text).map(JidPattern::Exactly).map_err(|_| WRONG) }
}

/// A name alone would be a host, which no viewer is, and which needs none.
pub(super) fn people(text: &str) -> Result<JidPattern, &'static str> {
    match pattern(text) {
        Ok(JidPattern::Exactly(jid)) if jid.node().is_none() => Err("is a host"),
        Ok(JidPattern::HostsBelow(_)) => Err("is a host"),
        pattern => pattern,
    }
}

pub(super) fn patterns(text: &str) -> Result<Vec<JidPattern>, &'static str> {
    some(text, |item| pattern(item).map_err(|_| "one of them is not a pattern"))
}

/// The members of a group.
pub(super) fn members(text: &str) -> Result<Vec<JidPattern>, &'static str> {
    some(text, |item| match people(item) {
        Ok(pattern) => Ok(pattern),
        Err(_) if item.starts_with('@') => Err("a group holds no other group"),
        Err(_) => Err("one of them is not a pattern of people"),
    })
}

/// Who may see somebody, with the members of the groups that are named.
pub(super) fn viewers(text: &str, groups: &Groups) -> Result<Vec<JidPattern>, &'static str> {
    let (mut viewers, mut named) = (Vec::new(), HashSet::new());
    for item in items(text) {
        if !item.starts_with('@') {
            viewers.push(people(item).map_err(|_| "one of them is not a pattern of people")?);
            continue;
        }
        let name = item.to_lowercase();
        let members = groups.get(&name).ok_or("names a group that this section does not define")?;
        if named.insert(name) {
            viewers.extend_from_slice(members);
        }
    }
    if viewers.is_empty() && named.is_empty() { Err("there is no pattern") } else { Ok(viewers) }
}

/// `show_text:no, coarse:yes`
pub(super) fn changes(text: &str) -> Result<Changes, &'static str> {
    let mut changes = Changes::default();
    for item in items(text) {
        let (name, value) = item.split_once(':').ok_or("one of them has no :yes or :no")?;
        let place = match name {
            "show_text" => &mut changes.text,
            "show_priority" => &mut changes.priority,
            "show_since" => &mut changes.since,
            "show_avatar" => &mut changes.avatar,
            "coarse" => &mut changes.coarse,
            _ => return Err("one of the names is not known"),
        };
        if place.replace(yes_no(value)?).is_some() {
            return Err("has one of the names twice");
        }
    }
    if changes == Changes::default() { Err("changes nothing") } else { Ok(changes) }
}

/// At least one.
fn some<T>(text: &str, read: impl Fn(&str) -> Result<T, &'static str>) -> Result<Vec<T>, &'static str> {
    let read = items(text).map(read).collect::<Result<Vec<_>, _>>()?;
    if read.is_empty() { Err("there is no pattern") } else { Ok(read) }
}

#[cfg(test)]
mod tests {
    use jid::BareJid;

    use super::super::DomainPattern;
    use super::*;

    #[test]
    fn patterns_are_people_or_hosts() {
        let exactly = |jid: &str| Ok(JidPattern::Exactly(BareJid::new(jid).expect("a bare JID")));
        let everybody = |domain: &str| Ok(JidPattern::Everybody(DomainPattern::Exactly(domain.into())));
        let (a_pattern, of_people) = ("is not a pattern", "is a host");
        let table = [
            ("Alice@Example.com", exactly("alice@example.com"), None),
            (r"a\40b@gateway.example", exactly(r"a\40b@gateway.example"), None),
            ("alice@[::1]", exactly("alice@[::1]"), None),
            ("*@Example.com", everybody("example.com"), None),
            ("*@bücher.example", everybody("bücher.example"), None),
            ("*@*.Example.com", Ok(JidPattern::Everybody(DomainPattern::Below("example.com".into()))), None),
            ("example.com", exactly("example.com"), Some(of_people)),
            ("localhost", exactly("localhost"), Some(of_people)),
            ("*.example.com", Ok(JidPattern::HostsBelow("example.com".into())), Some(of_people)),
            ("*", Err(a_pattern), None),
            ("*@*", Err(a_pattern), None),
            ("*@", Err(a_pattern), None),
            ("*.", Err(a_pattern), None),
            ("*@*.", Err(a_pattern), None),
            ("@example.com", Err(a_pattern), None),
            ("a*@example.com", Err(a_pattern), None),
            ("alice@*.example.com", Err(a_pattern), None),
            ("*@*.*.example.com", Err(a_pattern), None),
            ("*.*.example.com", Err(a_pattern), None),
            ("alice@example.com/web", Err(a_pattern), None),
            ("*@alice@example.com", Err(a_pattern), None),
            ("", Err(a_pattern), None),
        ];
        for (text, expected, as_people) in table {
            assert_eq!(pattern(text), expected, "{text}");
            assert_eq!(people(text), as_people.map_or(expected, Err), "{text}");
        }
    }

    #[test]
    fn a_group_counts_once_in_a_line() {
        let of = |names: &[&str]| names.iter().map(|name| people(name).expect("people")).collect::<Vec<_>>();
        let groups =
            Groups::from([("@team".to_owned(), of(&["b@x.example", "c@x.example"])), ("@none".into(), vec![])]);
        let table = [
            ("a@x.example", Ok(of(&["a@x.example"]))),
            ("@Team a@x.example, @team", Ok(of(&["b@x.example", "c@x.example", "a@x.example"]))),
            ("@none", Ok(vec![])),
            ("@team, @others", Err("names a group that this section does not define")),
            ("@team, bob", Err("one of them is not a pattern of people")),
            (",", Err("there is no pattern")),
        ];
        for (text, expected) in table {
            assert_eq!(viewers(text, &groups), expected, "{text}");
        }
    }
}
