//! Where a request comes from, as the visitor's browser tells: the page that shows the answer (Referer), the site whose
//! script reads it (Origin), and whether that is another site than ours (Fetch Metadata). Scripts cannot forge these; a
//! visitor can, who then deceives only himself.

use url::Url;

use super::request::Request;

/// Whether the page that shows the answer may. No list lets all; a visitor whose browser does not tell is let in.
pub fn is_welcome(request: &Request, referers: &[String]) -> bool {
    let Some(referer) = request.var("HTTP_REFERER").filter(|_| !referers.is_empty()) else { return true };
    let host = page(referer).and_then(|page| page.host_str().map(str::to_owned));
    host.is_some_and(|host| referers.contains(&host) || own_host(request).is_some_and(|own| own == host))
}

/// The origin of the script that asks, if it is among these.
pub fn listed<'a>(request: &Request, origins: &'a [String]) -> Option<&'a str> {
    let origin = request.var("HTTP_ORIGIN")?;
    origins.iter().map(String::as_str).find(|known| known.as_bytes() == origin)
}

/// Whether a page of another site makes its visitor's browser ask, with the visitor's login.
pub fn is_foreign(request: &Request, origins: &[String]) -> bool {
    let is_cross_site = request.var("HTTP_SEC_FETCH_SITE").is_some_and(|site| site.eq_ignore_ascii_case(b"cross-site"));
    is_cross_site && !is_trusted(request, origins)
}

/// Whether one of these origins asks: a script's is told, a picture's is that of its page.
pub fn is_trusted(request: &Request, origins: &[String]) -> bool {
    let by_page = || page(request.var("HTTP_REFERER")?).map(|page| page.origin().ascii_serialization());
    match request.var("HTTP_ORIGIN") {
        Some(_) => listed(request, origins).is_some(),
        None => by_page().is_some_and(|origin| origins.contains(&origin)),
    }
}

/// The host under which the visitor has asked, without its port.
pub fn own_host(request: &Request) -> Option<String> {
    let host = str::from_utf8(request.var("HTTP_HOST")?).ok()?;
    Url::parse(&format!("http://{host}/")).ok()?.host_str().map(str::to_owned)
}

fn page(referer: &[u8]) -> Option<Url> {
    Url::parse(str::from_utf8(referer).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    fn request(vars: &[(&str, &str)]) -> Request {
        Request { vars: vars.iter().copied().collect(), body: vec![], excess: None, arrived: Instant::now() }
    }

    fn list(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn pages_that_may_show_an_answer() {
        let hosts = list(&["www.example.com", "xn--mnchen-3ya.example"]);
        for (referer, welcome) in [
            ("", true),
            ("https://www.example.com/team.html?x", true),
            ("http://WWW.Example.COM:8080/", true),
            ("https://münchen.example/", true),
            ("https://status.example.net/page", true),
            ("https://evil.example/", false),
            ("https://www.example.com.evil.example/", false),
            ("https://www.example.com@evil.example/", false),
            ("null", false),
            ("about:blank", false),
        ] {
            let request = request(&[("HTTP_REFERER", referer), ("HTTP_HOST", "status.example.net:8443")]);
            assert_eq!(is_welcome(&request, &hosts), welcome, "{referer}");
            assert!(is_welcome(&request, &[]), "{referer}: without a list");
        }
    }

    #[test]
    fn requests_that_another_site_made() {
        let origins = list(&["https://www.example.com", "http://intra:8080"]);
        for (site, origin, referer, foreign) in [
            ("", "", "", false),
            ("same-origin", "", "", false),
            ("same-site", "https://evil.example", "", false),
            ("none", "", "", false),
            ("cross-site", "", "", true),
            ("Cross-Site", "", "", true),
            ("cross-site", "https://www.example.com", "", false),
            ("cross-site", "https://www.example.com:8443", "", true),
            ("cross-site", "http://www.example.com", "", true),
            ("cross-site", "null", "https://www.example.com/", true),
            ("cross-site", "", "https://www.example.com/team?x#y", false),
            ("cross-site", "", "http://intra:8080/", false),
            ("cross-site", "", "https://evil.example/https://www.example.com", true),
        ] {
            let vars = [("HTTP_SEC_FETCH_SITE", site), ("HTTP_ORIGIN", origin), ("HTTP_REFERER", referer)];
            assert_eq!(is_foreign(&request(&vars), &origins), foreign, "{vars:?}");
        }
    }

    #[test]
    fn our_own_host() {
        for (host, own) in [
            ("Example.com", Some("example.com")),
            ("example.com:8443", Some("example.com")),
            ("[::1]:80", Some("[::1]")),
            ("", None),
            ("a b", None),
            ("user@example.com", Some("example.com")),
        ] {
            assert_eq!(own_host(&request(&[("HTTP_HOST", host)])).as_deref(), own, "{host}");
        }
    }
}
