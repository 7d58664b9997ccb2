//! Who may see whom, in lines: where the rosters come from that `visibility = subscribers` goes by, and how it is known
//! who asks. What protects nobody, or shows nobody to anybody, is said here, since a page does not tell it.

use std::io;

use super::report::Report;
use crate::config::keys::Section;
use crate::config::{Identity, Requester, Visibility};
use crate::probe::standing::Standing;

impl Report<'_> {
    /// Which source of rosters works: the server's, the account's own, or the lines of the configuration.
    pub fn rosters(&mut self, identity: &Identity, standing: Standing) -> io::Result<()> {
        let (us, home, section) = (&identity.jid, identity.home(), identity.header(Section::Viewers));
        let is_needed = identity.access.visibility == Visibility::Subscribers;
        let lines = identity.access.viewers.len();
        match (identity.is_component(), standing.grants_rosters) {
            (false, _) if !is_needed => self.plain("roster access: an account has that to its own alone"),
            (false, _) => {
                let others = match lines {
                    0 => format!("everybody else is forbidden, since {section} is empty"),
                    _ => format!("for everybody else {}", deciding(lines, &section)),
                };
                self.plain(&format!("roster access: an account has that to its own alone, for {us} itself; {others}"))
            }
            (true, true) => {
                self.well(&format!("roster access: {home} grants it (XEP-0356)"))?;
                match lines {
                    0 => Ok(()),
                    _ if !is_needed => Ok(()),
                    _ => self.plain(&format!("{section} counts only for people whose roster {home} does not show")),
                }
            }
            (true, false) if !is_needed => {
                self.plain("roster access: not granted (only needed for visibility = subscribers)")
            }
            (true, false) if lines > 0 => {
                self.plain(&format!("roster access: {home} does not grant it; {}", deciding(lines, &section)))
            }
            (true, false) => {
                self.ill(&format!(
                    "roster access: {home} does not grant it, and {section} is empty: nobody can prove a subscription, \
                     and all people are forbidden"
                ))?;
                self.advice(&format!(
                    "mod_privilege of Prosody and of ejabberd grants it: roster, get, for {us}; or {section} can say who \
                     may see whom, or visibility = anyone in {} that every visitor may",
                    identity.header(Section::Access)
                ))
            }
        }
    }

    /// How it is known who asks, where that decides anything.
    pub fn requester(&mut self, identity: &Identity) -> io::Result<()> {
        let is_open = identity.access.visibility == Visibility::Anyone;
        match &identity.access.requester {
            Requester::Query if is_open => Ok(()),
            _ if is_open => self.plain("requester: it does not matter who asks, since visibility = anyone"),
            Requester::Query => self.plain(
                "requester = query: req_jid is a claim that anybody can make; remote-user and signed are believed for \
                 a reason",
            ),
            Requester::RemoteUser { domain } => self.plain(&format!(
                "requester = remote-user: who has logged in to the web server is NAME@{domain}; it counts only behind \
                 the snippets with a login"
            )),
            Requester::Signed(keys) => {
                let files = if keys.old.is_some() { "both keys are" } else { "the key is" };
                self.well(&format!("requester = signed: {files} read; a link lives {} days at most", keys.days))
            }
        }
    }
}

/// `the 2 lines of [viewers] say who may see whom`
fn deciding(lines: usize, section: &str) -> String {
    match lines {
        1 => format!("the line of {section} says who may see whom"),
        _ => format!("the {lines} lines of {section} say who may see whom"),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{self, Secret, SigningKeys};

    fn identity(lines: &str) -> Identity {
        let text = format!("[xmpp a]\npassword = x\njid = {lines}\n");
        let config = config::parse(&text, Path::new("test.ini")).unwrap_or_else(|errors| panic!("{errors}"));
        config.identities.into_iter().next().expect("an identity")
    }

    fn told(write: impl FnOnce(&mut Report<'_>) -> io::Result<()>) -> String {
        let mut text = Vec::new();
        let mut report = Report::to(&mut text);
        write(&mut report).expect("memory");
        assert_eq!(report.all_well, !String::from_utf8_lossy(&text).contains('✗'));
        String::from_utf8(text).expect("text")
    }

    #[test]
    fn each_source_of_rosters_is_named() {
        const ONE: &str = "[viewers a]\na@x.example = b@x.example";
        const TWO: &str = "[viewers a]\na@x.example = b@x.example\nb@x.example = @g\n@g = c@x.example";
        const ANYONE: &str = "[access a]\nvisibility = anyone";
        let (account, component) = ("bot@x.example", "web.x.example");
        let own = "· roster access: an account has that to its own alone";
        let granted = "✓ roster access: x.example grants it (XEP-0356)\n";
        let refused = "roster access: x.example does not grant it";
        let beside = "· [viewers a] counts only for people whose roster x.example does not show\n";
        let nobody = "and [viewers a] is empty: nobody can prove a subscription, and all people are forbidden\n  \
                      mod_privilege of Prosody and of ejabberd grants it: roster, get, for web.x.example; or [viewers a] \
                      can say who may see whom, or visibility = anyone in [access a] that every visitor may\n";
        let line = "the line of [viewers a] says who may see whom\n";
        let lines = "the 2 lines of [viewers a] say who may see whom\n";
        for (jid, more, grants_rosters, expected) in [
            (
                account,
                "",
                false,
                format!("{own}, for {account} itself; everybody else is forbidden, since [viewers a] is empty\n"),
            ),
            (account, ONE, false, format!("{own}, for {account} itself; for everybody else {line}")),
            (account, ANYONE, false, format!("{own}\n")),
            (component, "", true, granted.to_owned()),
            (component, TWO, true, format!("{granted}{beside}")),
            (component, &format!("{ANYONE}\n{TWO}"), true, granted.to_owned()),
            (component, "", false, format!("✗ {refused}, {nobody}")),
            (component, ONE, false, format!("· {refused}; {line}")),
            (component, TWO, false, format!("· {refused}; {lines}")),
            (
                component,
                ANYONE,
                false,
                "· roster access: not granted (only needed for visibility = subscribers)\n".into(),
            ),
        ] {
            let identity = identity(&format!("{jid}\n{more}"));
            let standing = Standing { grants_rosters, ..Standing::default() };
            assert_eq!(told(|report| report.rosters(&identity, standing)), expected, "{jid} {more} {grants_rosters}");
        }
    }

    #[test]
    fn what_a_name_is_worth_is_told() {
        let believed = "· requester = remote-user: who has logged in to the web server is NAME@x.example; it counts only \
                        behind the snippets with a login\n";
        for (visibility, query) in [
            (
                "subscribers",
                "· requester = query: req_jid is a claim that anybody can make; remote-user and signed are believed for a \
                 reason\n",
            ),
            ("anyone", ""),
        ] {
            let mut identity = identity(&format!("web.x.example\n[access a]\nvisibility = {visibility}"));
            assert_eq!(told(|report| report.requester(&identity)), query);
            identity.access.requester = Requester::RemoteUser { domain: "x.example".into() };
            let is_open = visibility == "anyone";
            let nobody = "· requester: it does not matter who asks, since visibility = anyone\n";
            assert_eq!(told(|report| report.requester(&identity)), if is_open { nobody } else { believed });
            let key = || Secret::new("k".repeat(32));
            for (old, expected) in [
                (None, "✓ requester = signed: the key is read; a link lives 7 days at most\n"),
                (Some(key()), "✓ requester = signed: both keys are read; a link lives 7 days at most\n"),
            ] {
                identity.access.requester = Requester::Signed(SigningKeys { current: key(), old, days: 7 });
                assert_eq!(told(|report| report.requester(&identity)), if is_open { nobody } else { expected });
            }
        }
    }
}
