//! `webpresence probe JID...`: asks now, past every cache, and tells a person what came back, how long each part of the
//! way took, and why somebody is not shown. The web never tells the reason; the admin needs it.

use std::io;
use std::time::Duration;

use jid::BareJid;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::Instant;

use super::{Failed, Out, advice, by_identity, run_on, runtime, shared_directory};
use crate::access;
use crate::config::{Config, Identity, ServerKind};
use crate::presence::{Resource, State, Texts};
use crate::probe::prober::{Manner, Prober, Unasked};
use crate::probe::steps::{Stage, Steps};
use crate::probe::{Answer, Why};

/// What the web makes of an answer that only this command gets.
const HIDDEN: &str = "on the web: forbidden, whatever this is, because of visibility = subscribers in [access]";

pub fn probe(config: &Config, jids: &[BareJid], out: Out<'_>) -> Result<(), Failed> {
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
            let manner = Manner { steps: Steps::told_to(listener), ..Manner::of_command(directory.clone()) };
            let (prober, task) = Prober::spawn(identity.clone(), manner);
            for jid in jids {
                let begun = Instant::now();
                let answer = prober.ask(jid.clone(), begun + identity.timeout).await;
                let answered = Instant::now();
                let failure = answer.as_ref().err().map(|unasked| unasked.failure.clone());
                all_known &= tell(jid, identity, answer, out)?;
                if access::needs_asker(&identity.access, jid) {
                    writeln!(out, "  {HIDDEN}")?;
                }
                if let Some(advice) = failure.and_then(|failure| advice(&failure, identity, directory.as_deref())) {
                    writeln!(out, "  {advice}")?;
                }
                writeln!(out, "  {}", way(begun, answered, &mut steps))?;
            }
            drop(prober);
            task.await.map_err(|error| Failed::Because(error.to_string()))?;
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
    Ok(true)
}

/// Why somebody is not shown, and what can be done about it.
pub fn refusal(jid: &BareJid, identity: &Identity, why: Why) -> String {
    let accepted = format!("{jid} has not accepted {}; run: webpresence subscribe {jid}", identity.jid);
    let unless = "or there is no such user: the server does not tell";
    match why {
        Why::Chosen => format!("{jid} has told {} not to be shown", identity.jid),
        Why::Pending => format!("{jid} has been asked and has not accepted {} yet", identity.jid),
        Why::NotFound => format!("{} knows no such address", jid.domain()),
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
