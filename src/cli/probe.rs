//! `webpresence probe JID...`: asks now, past every cache, and tells a person what came back, how long each part of the
//! way took, why somebody is not shown, and who may see it. The web never tells the reasons; the admin needs them.

use std::io;
use std::time::Duration;

use jid::BareJid;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::Instant;

use super::{Failed, Out, advice, by_identity, run_on, runtime, shared_directory};
use crate::access::{self, Asker};
use crate::config::{Config, Identity, Requester, ServerKind};
use crate::presence::{Resource, State, Texts};
use crate::probe::prober::{Manner, Prober, Unasked};
use crate::probe::steps::{Stage, Steps};
use crate::probe::{Answer, Why};
use crate::site::Lesson;
use crate::viewers::Viewers;

/// `requester` is whose rights are wanted.
pub fn probe(config: &Config, jids: &[BareJid], requester: Option<&BareJid>, out: Out<'_>) -> Result<(), Failed> {
    let directory = shared_directory(config, log::Level::Error);
    let all_known = run_on(runtime()?, async {
        let mut all_known = true;
        for (identity, jids) in by_identity(config, jids) {
            let Some(identity) = identity else {
                for jid in jids {
                    writeln!(out, "{jid}: forbidden: none of the [access] domains serves {}", jid.domain())?;
                }
                continue;
            };
            let (listener, mut steps) = unbounded_channel();
            let Lesson { cache, news, task: lesson } = Lesson::of(config, identity, directory.as_deref(), None);
            let steps_told = Steps::told_to(listener);
            let manner = Manner {
                steps: steps_told,
                news: Some(news),
                ..Manner::of_command(directory.clone()).among_machines(config, log::Level::Warn)
            };
            let (prober, task) = Prober::spawn(identity.clone(), manner);
            for jid in jids {
                let begun = Instant::now();
                let answer = prober.ask(jid.clone(), begun + identity.timeout).await;
                let answered = Instant::now();
                if answer.as_ref().is_ok_and(|answer| answer.presence.state == State::Forbidden) {
                    cache.forget(jid).await;
                }
                let failure = answer.as_ref().err().map(|unasked| unasked.failure.clone());
                let viewers = answer.as_ref().ok().map(|answer| answer.viewers.clone());
                all_known &= tell(jid, identity, answer, out)?;
                if let Some(who) = viewers.and_then(|viewers| who_may_see(identity, jid, requester, viewers.as_ref())) {
                    writeln!(out, "  {who}")?;
                }
                if let Some(advice) = failure.and_then(|failure| advice(&failure, identity, directory.as_deref())) {
                    writeln!(out, "  {advice}")?;
                }
                writeln!(out, "  {}", way(begun, answered, &mut steps))?;
            }
            drop(prober);
            for task in [task, lesson] {
                task.await.map_err(|error| Failed::Because(error.to_string()))?;
            }
        }
        Ok::<bool, Failed>(all_known)
    })?;
    if all_known { Ok(()) } else { Err(Failed::Told) }
}

/// Prints what is known; false if nothing is.
fn tell(jid: &BareJid, identity: &Identity, answer: Result<Answer, Unasked>, out: Out<'_>) -> io::Result<bool> {
    let answer = match answer {
        Ok(answer) => answer,
        Err(unasked) => {
            writeln!(out, "{jid}: unknown: {unasked}")?;
            return Ok(false);
        }
    };
    let state = answer.presence.state;
    match state {
        State::Forbidden => writeln!(out, "{jid}: forbidden: {}", refusal(jid, identity, answer.why))?,
        _ => writeln!(out, "{jid}: {}{}{}", state.name(), quoted(&answer.presence.texts), grounds(answer.why))?,
    }
    for resource in &answer.resources {
        writeln!(out, "  {}", line(resource))?;
    }
    if !answer.settled {
        writeln!(
            out,
            "  the server left questions unanswered: on the web this is unknown to those who may not see it"
        )?;
    }
    Ok(true)
}

/// Who may see somebody on the web, or whether `requester` may; `None` where everybody may and nobody asks.
fn who_may_see(
    identity: &Identity,
    jid: &BareJid,
    requester: Option<&BareJid>,
    viewers: Option<&Viewers>,
) -> Option<String> {
    let access = &identity.access;
    if access::is_excluded(access, jid) {
        let is_denied = access.deny.iter().any(|pattern| pattern.holds(jid));
        let list = if is_denied { "deny names this address" } else { "allow does not name this address" };
        return Some(format!("nobody may see this: [access] {list}"));
    }
    let open = match jid.node() {
        _ if access::needs_asker(access, jid) => None,
        None => Some("this is no person"),
        Some(_) => Some("visibility = anyone"),
    };
    match (requester, open) {
        (None, Some(_)) => None,
        (Some(requester), Some(open)) => Some(format!("{requester} may see this: {open}")),
        (Some(requester), None) => Some(whether(identity, jid, requester, viewers)),
        (None, None) => Some(match (viewers, listed(identity, jid)) {
            (Some(viewers), _) => format!("{} may see this, by the roster", people(viewers.len())),
            (None, 0) => "nobody may see this: no roster can be read, and [viewers] names nobody for it".to_owned(),
            (None, many) => format!("no roster can be read: [viewers] decides who may see this, by {}", patterns(many)),
        }),
    }
}

/// Under `visibility = subscribers`.
fn whether(identity: &Identity, jid: &BareJid, requester: &BareJid, viewers: Option<&Viewers>) -> String {
    let asker = match identity.access.requester {
        Requester::Query => Asker::Claimed(requester.clone()),
        Requester::RemoteUser { .. } | Requester::Signed(_) => Asker::Proven(requester.clone()),
    };
    let may = access::may_see(&identity.access, jid, &asker, viewers);
    let ground = match (viewers, may) {
        _ if requester == jid && may => "it is himself".to_owned(),
        // Anyone could say he were the person asked about.
        _ if requester == jid => "a claim (requester = query) does not prove that it is himself".to_owned(),
        (Some(_), true) => "has a subscription, by the roster".to_owned(),
        (Some(viewers), false) => format!("has no subscription, by the roster ({})", people(viewers.len())),
        (None, true) => "listed in [viewers]; no roster can be read".to_owned(),
        (None, false) => {
            let many = patterns(listed(identity, jid));
            format!("no roster can be read, and [viewers] does not list it ({many})")
        }
    };
    format!("{requester} {} see this: {ground}", if may { "may" } else { "may not" })
}

/// How many patterns of viewers the configuration has for somebody.
fn listed(identity: &Identity, jid: &BareJid) -> usize {
    let lines = identity.access.viewers.iter().filter(|(people, _)| people.holds(jid));
    lines.map(|(_, viewers)| viewers.len()).sum()
}

fn people(number: usize) -> String {
    if number == 1 { "1 person".to_owned() } else { format!("{number} people") }
}

fn patterns(number: usize) -> String {
    if number == 1 { "1 pattern".to_owned() } else { format!("{number} patterns") }
}

/// Why somebody is not shown, and what can be done about it.
pub fn refusal(jid: &BareJid, identity: &Identity, why: Why) -> String {
    let accepted = format!("{jid} has not accepted {}; run: webpresence subscribe {jid}", identity.jid);
    let unless = "or there is no such user: the server does not tell";
    match why {
        Why::Chosen => format!("{jid} has told {} not to be shown", identity.jid),
        Why::Pending => format!("{jid} has been asked and has not accepted {} yet", identity.jid),
        Why::NotFound => format!("{} knows no such address", jid.domain()),
        Why::NotRunning => format!("nothing is connected as {}, and {jid} is not known to have accepted", jid.domain()),
        Why::Silence(kind) | Why::NoConsent(kind) => {
            let shortcut = shortcut(jid, identity, kind).map(|way| format!("\n  {way}")).unwrap_or_default();
            format!("{accepted} ({unless}){shortcut}")
        }
        _ => format!("{accepted} ({unless})"),
    }
}

/// How the admin of that server gives consent for his users without their doing.
fn shortcut(jid: &BareJid, identity: &Identity, kind: ServerKind) -> Option<String> {
    let user = jid.node()?.as_str();
    let (domain, us) = (jid.domain(), &identity.jid);
    let (name, host) = (us.node().map(|node| node.as_str()).unwrap_or_default(), us.domain());
    match kind {
        ServerKind::Ejabberd => {
            Some(format!("or as its admin: ejabberdctl add_rosteritem {user} {domain} \"{name}\" {host} Web Web from"))
        }
        ServerKind::Prosody => Some(format!(
            "or as its admin: mod_groups, with {us} and {jid} in one group of its groups_file, then a restart"
        )),
        ServerKind::Openfire | ServerKind::Other => None,
    }
}

fn grounds(why: Why) -> &'static str {
    match why {
        Why::Present => "",
        Why::SaidOffline => " (the server said so)",
        Why::LastActivity => " (by last activity, XEP-0012)",
        Why::Silence(ServerKind::Openfire) => " (Openfire says nothing about people who are offline)",
        Why::Silence(_) => " (the server said nothing, and this person has consented)",
        Why::Service => " (a server, component or room that answered)",
        Why::NotRunning => " (nothing is connected under this name)",
        Why::NoOtherClient => " (the account that asks, and no other client of it is connected)",
        Why::Refused | Why::Chosen | Why::Pending | Why::NoConsent(_) | Why::NotFound => "",
    }
}

fn line(resource: &Resource) -> String {
    let name = if resource.name.is_empty() { "(no resource)" } else { &resource.name };
    format!("{name}: {}, priority {}{}", resource.state.name(), resource.priority, quoted(&resource.texts))
}

/// The text, fit for a terminal: control characters could move its cursor.
pub fn quoted(texts: &Texts) -> String {
    texts.choose(&[]).map(|text| format!(" {text:?}")).unwrap_or_default()
}

/// `its turn 0.1 ms, connected 0.3 ms, …`, each part by itself.
fn way(begun: Instant, answered: Instant, steps: &mut UnboundedReceiver<(Instant, Stage)>) -> String {
    let (mut parts, mut last) = (Vec::new(), begun);
    while let Ok((at, stage)) = steps.try_recv() {
        if at > answered {
            break;
        }
        parts.push(format!("{stage} {}", ms(at - last)));
        last = at;
    }
    parts.push(format!("answered {}", ms(answered - last)));
    format!("{}; {} in all", parts.join(", "), ms(answered - begun))
}

/// Milliseconds with one digit behind the point.
pub fn ms(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{self, Access, DomainPattern, JidPattern, Visibility};

    fn jid(text: &str) -> BareJid {
        BareJid::new(text).expect("a bare JID")
    }

    fn pattern(text: &str) -> JidPattern {
        match text.strip_prefix("*@") {
            Some(domain) => JidPattern::Everybody(DomainPattern::Exactly(domain.to_owned())),
            None => JidPattern::Exactly(jid(text)),
        }
    }

    /// With these patterns for alice in `[viewers]`.
    fn identity(visibility: Visibility, requester: Requester, viewers: &[&str]) -> Identity {
        let text = "[xmpp]\njid = presence.example.com\npassword = secret\n";
        let config = config::parse(text, Path::new("test.ini")).unwrap_or_else(|e| panic!("{e}"));
        let mut identity = config.identities.into_iter().next().expect("one");
        let viewers = viewers.iter().map(|text| pattern(text)).collect();
        let viewers = vec![(pattern("alice@example.com"), viewers), (pattern("*@example.org"), vec![pattern("*@x")])];
        identity.access = Access { visibility, requester, viewers, ..identity.access };
        identity
    }

    #[test]
    fn who_may_see_whom_and_why() {
        use Visibility::{Anyone, Subscribers};
        let (claim, login) = (Requester::Query, Requester::RemoteUser { domain: "example.com".to_owned() });
        let roster = &Some(Viewers::of(&[jid("bob@example.com")]));
        let empty = &Some(Viewers::default());
        let rows: [(_, _, &[&str], _, _, _); 12] = [
            (Anyone, &claim, &[], "", &None, None),
            (Anyone, &claim, &[], "eve@x", &None, Some("eve@x may see this: visibility = anyone")),
            (Subscribers, &claim, &[], "", roster, Some("1 person may see this, by the roster")),
            (Subscribers, &claim, &["bob@x"], "", empty, Some("0 people may see this, by the roster")),
            (
                Subscribers,
                &claim,
                &[],
                "",
                &None,
                Some("nobody may see this: no roster can be read, and [viewers] names nobody for it"),
            ),
            (
                Subscribers,
                &claim,
                &["bob@x", "*@y"],
                "",
                &None,
                Some("no roster can be read: [viewers] decides who may see this, by 2 patterns"),
            ),
            (
                Subscribers,
                &claim,
                &[],
                "bob@example.com",
                roster,
                Some("bob@example.com may see this: has a subscription, by the roster"),
            ),
            (
                Subscribers,
                &claim,
                &["eve@x"],
                "eve@x",
                roster,
                Some("eve@x may not see this: has no subscription, by the roster (1 person)"),
            ),
            (
                Subscribers,
                &claim,
                &["bob@x", "*@y"],
                "eve@y",
                &None,
                Some("eve@y may see this: listed in [viewers]; no roster can be read"),
            ),
            (
                Subscribers,
                &claim,
                &["bob@x"],
                "bob@y",
                &None,
                Some("bob@y may not see this: no roster can be read, and [viewers] does not list it (1 pattern)"),
            ),
            (
                Subscribers,
                &claim,
                &[],
                "alice@example.com",
                roster,
                Some(
                    "alice@example.com may not see this: a claim (requester = query) does not prove that it is himself",
                ),
            ),
            (
                Subscribers,
                &login,
                &[],
                "alice@example.com",
                roster,
                Some("alice@example.com may see this: it is himself"),
            ),
        ];
        for (visibility, by, viewers, requester, roster, expected) in rows {
            let identity = identity(visibility, by.clone(), viewers);
            let requester = (!requester.is_empty()).then(|| jid(requester));
            let told = who_may_see(&identity, &jid("alice@example.com"), requester.as_ref(), roster.as_ref());
            assert_eq!(told.as_deref(), expected, "{visibility:?} {by:?} {viewers:?} {requester:?}");
        }
        let host = who_may_see(&identity(Subscribers, claim, &[]), &jid("example.com"), Some(&jid("eve@x")), None);
        assert_eq!(host.as_deref(), Some("eve@x may see this: this is no person"));
    }

    #[test]
    fn the_admins_lists_come_first_and_deny_before_allow() {
        let roster = Viewers::of(&[jid("bob@example.com")]);
        let denied = Some("nobody may see this: [access] deny names this address");
        for (allow, deny, expected) in [
            ("alice@example.com", "alice@example.com", denied),
            ("*@example.com", "*@example.com", denied),
            (
                "bob@example.com",
                "bob@example.com",
                Some("nobody may see this: [access] allow does not name this address"),
            ),
            ("*@example.com", "bob@example.com", Some("1 person may see this, by the roster")),
        ] {
            let mut identity = identity(Visibility::Subscribers, Requester::Query, &[]);
            (identity.access.allow, identity.access.deny) = (vec![pattern(allow)], vec![pattern(deny)]);
            let told = who_may_see(&identity, &jid("alice@example.com"), None, Some(&roster));
            assert_eq!(told.as_deref(), expected, "{allow} {deny}");
        }
    }
}
