//! How long an answer may be kept, and by whom: the Cache-Control of RFC 9111 and RFC 5861, and what its age is counted
//! from, Age or Date. Who is in which scope is decided by `answer`.

use std::borrow::Cow;
use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;

use super::response::Header;
use crate::config::CacheSettings;
use crate::presence::State;

/// Who may keep an answer: from the most to the least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    Public,
    /// The visitor's browser.
    Private,
    /// The visitor's browser, if it asks again every time: a login has, or may have, a say.
    Login,
    Nobody,
}

/// The headers for an answer about `state` that was learnt `age` ago and is told at `now_s`, in seconds since 1970. A
/// refusal may never outlive its `ttl`, so that nobody may serve it stale; no answer may outlive `life`.
pub fn headers(
    scope: Scope,
    settings: &CacheSettings,
    state: State,
    age: Duration,
    life: Duration,
    now_s: u64,
) -> [Option<Header>; 2] {
    let rest = settings.ttl.checked_sub(age).map(|rest| rest.min(life).as_secs().to_string());
    let control: Cow<_> = match (scope, rest) {
        (Scope::Nobody, _) => "no-store".into(),
        (Scope::Login, _) => "private, no-cache".into(),
        // Caches count Age against max-age: beside anything but 0 it would be counted twice.
        (scope, None) => {
            let control = if scope == Scope::Private { "private, max-age=0" } else { "max-age=0" };
            return [Some(("Cache-Control", control.into())), Some(("Age", age.as_secs().to_string().into()))];
        }
        (Scope::Private, Some(rest)) => ["private, max-age=", &rest].concat().into(),
        (Scope::Public, Some(rest)) if state == State::Forbidden => ["public, max-age=", &rest].concat().into(),
        (Scope::Public, Some(rest)) => {
            let (refresh, stale) = (settings.refresh.as_secs().to_string(), settings.stale.as_secs().to_string());
            ["public, max-age=", &rest, ", stale-while-revalidate=", &refresh, ", stale-if-error=", &stale]
                .concat()
                .into()
        }
    };
    // COMPAT: nginx keeps an answer without counting an Age (RFC 9111, 5.1), but tells its Date again: browsers count
    // from that, instead of keeping an old answer for another max-age.
    let date = (scope == Scope::Public).then(|| date(now_s)).flatten();
    [Some(("Cache-Control", control)), date.map(|date| ("Date", date.into()))]
}

/// As HTTP writes it (RFC 9110, 5.6.7).
fn date(now_s: u64) -> Option<String> {
    let now = Timestamp::from_second(now_s.try_into().ok()?).ok()?;
    DateTimePrinter::new().timestamp_to_rfc9110_string(&now).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_S: u64 = 784_111_777;
    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

    #[test]
    fn the_table_of_the_contract() {
        let settings = CacheSettings {
            ttl: Duration::from_secs(30),
            refresh: Duration::from_secs(10),
            stale: Duration::from_secs(300),
            entries: 1,
            directory: None,
        };
        let (away, forbidden) = (State::Away, State::Forbidden);
        let rows: [(Scope, State, u64, &str, Option<&str>); 17] = [
            (Scope::Public, away, 0, "public, max-age=30, stale-while-revalidate=10, stale-if-error=300", None),
            (Scope::Public, away, 1, "public, max-age=29, stale-while-revalidate=10, stale-if-error=300", None),
            (Scope::Public, away, 10_500, "public, max-age=19, stale-while-revalidate=10, stale-if-error=300", None),
            (Scope::Public, away, 30_000, "public, max-age=0, stale-while-revalidate=10, stale-if-error=300", None),
            (Scope::Public, away, 30_001, "max-age=0", Some("30")),
            (Scope::Public, away, 299_900, "max-age=0", Some("299")),
            (Scope::Public, forbidden, 0, "public, max-age=30", None),
            (Scope::Public, forbidden, 30_000, "public, max-age=0", None),
            (Scope::Public, forbidden, 31_000, "max-age=0", Some("31")),
            (Scope::Private, away, 0, "private, max-age=30", None),
            (Scope::Private, away, 12_000, "private, max-age=18", None),
            (Scope::Private, away, 31_000, "private, max-age=0", Some("31")),
            (Scope::Private, forbidden, 0, "private, max-age=30", None),
            (Scope::Login, away, 0, "private, no-cache", None),
            (Scope::Login, away, 31_000, "private, no-cache", None),
            (Scope::Nobody, away, 0, "no-store", None),
            (Scope::Nobody, away, 31_000, "no-store", None),
        ];
        for (scope, state, age_ms, control, age) in rows {
            let mut expected: Vec<Header> = vec![("Cache-Control", control.into())];
            let date = (scope == Scope::Public && age.is_none()).then_some(("Date", DATE.into()));
            expected.extend(age.map(|age| ("Age", age.into())).or(date));
            let found = headers(scope, &settings, state, Duration::from_millis(age_ms), Duration::MAX, NOW_S);
            assert_eq!(found.into_iter().flatten().collect::<Vec<_>>(), expected, "{scope:?} {state:?} {age_ms}");
        }
        for (life, control) in [(0, "private, max-age=0"), (17, "private, max-age=17"), (18, "private, max-age=18")] {
            let life_left = Duration::from_secs(life);
            let found = headers(Scope::Private, &settings, away, Duration::from_secs(12), life_left, NOW_S);
            assert_eq!(found, [Some(("Cache-Control", control.into())), None], "a link that ends in {life} s");
        }
    }
}
