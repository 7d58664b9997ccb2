//! What the gateway sends back, and the headers that go with every answer whatever it says: what browsers may do with
//! it, which version of it this is (ETag, 304) and how long it is.

use std::borrow::Cow;

use bytes::Bytes;

use super::request::{METHODS, Method, Request};
use crate::render::file::{File, Tag};

/// A CGI answer (RFC 3875, 6). The headers are complete; the body is already empty for HEAD, 204 and 304.
#[derive(Debug, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<Header>,
    pub body: Bytes,
    /// Which version the body is, where that is known already.
    pub version: Option<Tag>,
}

/// Name and value.
pub type Header = (&'static str, Cow<'static, str>);

/// Whose scripts may read an answer (CORS).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readers<'a> {
    OwnSite,
    Everybody,
    /// This one, whose visitor may be logged in here.
    Origin(&'a str),
}

/// Where an answer may be embedded, even if no script can read it: anywhere, unless it says otherwise already.
const EMBEDDED: &str = "Cross-Origin-Resource-Policy";

/// As many as most answers have.
const HEADERS: usize = 12;

/// Caches are asked to tell apart what a page visit and a picture on a page get.
pub const FETCH_VARY: &str = "Sec-Fetch-Mode, Sec-Fetch-Dest, Accept";

impl Response {
    pub fn new(status: u16, content_type: &'static str, body: impl Into<Bytes>) -> Response {
        let headers = Vec::with_capacity(HEADERS);
        Response { status, headers, body: body.into(), version: None }.with("Content-Type", content_type)
    }

    /// Of what is kept finished, its version with it.
    pub fn of(file: File, status: u16, content_type: &'static str) -> Response {
        Response { version: Some(file.tag), ..Response::new(status, content_type, file.bytes) }
    }

    /// The answer to a CORS preflight (Fetch, 3.2.2), or what OPTIONS gets where no other site may read answers.
    pub fn preflight(readers: Readers) -> Response {
        let response =
            Response { status: 204, headers: Vec::new(), body: Bytes::new(), version: None }.with("Allow", METHODS);
        // Beside a login a star is no more than a star (Fetch, 3.2.5).
        let headers = match readers {
            Readers::OwnSite => return response,
            Readers::Everybody => "*",
            Readers::Origin(_) => "Cache-Control, If-None-Match, X-Requested-With",
        };
        response
            .open_to(readers)
            .with("Access-Control-Allow-Methods", METHODS)
            .with("Access-Control-Allow-Headers", headers)
            .with("Access-Control-Max-Age", "86400")
    }

    pub fn with(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Response {
        self.headers.push((name, value.into()));
        self
    }

    pub fn has(&self, name: &str) -> bool {
        self.headers.iter().any(|(known, _)| *known == name)
    }

    /// Lets these scripts read the answer.
    pub fn shared(self, readers: Readers) -> Response {
        if readers == Readers::OwnSite {
            return self;
        }
        self.open_to(readers).with("Access-Control-Expose-Headers", "Age, ETag, Retry-After")
    }

    fn open_to(self, readers: Readers) -> Response {
        match readers {
            Readers::OwnSite => self,
            Readers::Everybody => self.with("Access-Control-Allow-Origin", "*"),
            Readers::Origin(origin) => self
                .with("Access-Control-Allow-Origin", origin.to_owned())
                .with("Access-Control-Allow-Credentials", "true"),
        }
    }

    /// No page of another site may embed it.
    pub fn for_own_site(self) -> Response {
        self.with(EMBEDDED, "same-site")
    }

    /// For what a browser would run if it were opened on its own.
    pub fn confined(self) -> Response {
        self.with("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; img-src data:")
    }

    /// Completes the answer for this request: the headers every answer has, ETag and 304, length, no body for HEAD.
    pub fn seal(mut self, request: &Request) -> Response {
        self = self.with("X-Content-Type-Options", "nosniff").with("X-Robots-Tag", "noindex");
        if !self.has(EMBEDDED) {
            self = self.with(EMBEDDED, "cross-origin");
        }
        if self.status == 200 {
            self = self.versioned(request);
        }
        if !matches!(self.status, 204 | 304) {
            let length = self.body.len().to_string();
            self = self.with("Content-Length", length);
        }
        if request.method() == Some(Method::Head) {
            self.body.clear();
        }
        self
    }

    /// Adds the ETag; where the visitor has this version already he is told so (RFC 9110, 13.1.2 and 15.4.5).
    fn versioned(mut self, request: &Request) -> Response {
        let tag = self.version.unwrap_or_else(|| Tag::of(&self.body));
        let known = request.var("HTTP_IF_NONE_MATCH").is_some_and(|field| lists(field, tag.as_str()));
        if known && matches!(request.method(), Some(Method::Get | Method::Head)) {
            self.status = 304;
            self.headers.retain(|(name, _)| *name != "Content-Type");
            self.body.clear();
        }
        self.with("ETag", ["\"", tag.as_str(), "\""].concat())
    }
}

/// Does an If-None-Match list this tag, compared weakly? Ours has no comma, so that a tag with one is somebody else's.
fn lists(field: &[u8], tag: &str) -> bool {
    field.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).any(|item| item == b"*" || is_tag(item, tag))
}

fn is_tag(item: &[u8], tag: &str) -> bool {
    let item = without_coding(item.strip_prefix(b"W/").unwrap_or(item));
    let inside = item.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
    inside.is_some_and(|inside| without_coding(inside) == tag.as_bytes())
}

/// COMPAT: Apache's mod_deflate and mod_brotli put the coding into the tag (older ones behind it) and do not take it
/// off again.
fn without_coding(tag: &[u8]) -> &[u8] {
    tag.strip_suffix(b"-gzip").or_else(|| tag.strip_suffix(b"-br")).unwrap_or(tag)
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    /// SHA-256 of "Away\n", cut.
    const TAG: &str = "d3b26037202af23b32dfec09641a8d6d";

    fn request(method: &str, if_none_match: &str) -> Request {
        let vars = [("REQUEST_METHOD", method), ("HTTP_IF_NONE_MATCH", if_none_match)];
        Request { vars: vars.into(), body: vec![], excess: None, arrived: Instant::now() }
    }

    fn away(request: &Request) -> Response {
        let response = Response::new(200, "text/plain; charset=utf-8", "Away\n");
        response
            .with("Cache-Control", "public, max-age=30")
            .with("Vary", "Accept-Language")
            .shared(Readers::Everybody)
            .seal(request)
    }

    const COMMON: [(&str, &str); 7] = [
        ("Cache-Control", "public, max-age=30"),
        ("Vary", "Accept-Language"),
        ("Access-Control-Allow-Origin", "*"),
        ("Access-Control-Expose-Headers", "Age, ETag, Retry-After"),
        ("X-Content-Type-Options", "nosniff"),
        ("X-Robots-Tag", "noindex"),
        ("Cross-Origin-Resource-Policy", "cross-origin"),
    ];

    fn headers(rows: &[(&'static str, &str)]) -> Vec<Header> {
        rows.iter().map(|(name, value)| (*name, value.to_string().into())).collect()
    }

    #[test]
    fn an_answer_its_head_and_its_304() {
        let etag = ("ETag", format!("\"{TAG}\""));
        let etag = (etag.0, etag.1.as_str());
        let whole = [&[("Content-Type", "text/plain; charset=utf-8")], &COMMON[..], &[etag, ("Content-Length", "5")]];
        let whole = Response { status: 200, headers: headers(&whole.concat()), body: "Away\n".into(), version: None };
        assert_eq!(away(&request("GET", "")), whole);
        assert_eq!(away(&request("POST", "*")), whole);
        assert_eq!(away(&request("HEAD", "")), Response { body: Bytes::new(), ..whole });

        let unchanged = Response {
            status: 304,
            headers: headers(&[&COMMON[..], &[etag]].concat()),
            body: Bytes::new(),
            version: None,
        };
        assert_eq!(away(&request("GET", "*")), unchanged);
        assert_eq!(away(&request("HEAD", "*")), unchanged);
    }

    #[test]
    fn variants_of_if_none_match() {
        for (field, status) in [
            ("\"TAG\"", 304),
            ("W/\"TAG\"", 304),
            ("\"TAG-gzip\"", 304),
            ("W/\"TAG-br\"", 304),
            ("\"TAG\"-gzip", 304),
            ("\"other\", \"TAG\"", 304),
            ("\"o,ther\",W/\"TAG\",", 304),
            (" * ", 304),
            ("", 200),
            ("TAG", 200),
            ("\"TAG", 200),
            ("\"\"", 200),
            ("\"", 200),
            ("\"TAG-zstd\"", 200),
            ("\"TAG-gzip-gzip\"", 200),
            ("\"xTAG\"", 200),
            ("w/\"TAG\"", 200),
            ("\"*\"", 200),
            (",,,", 200),
        ] {
            assert_eq!(away(&request("GET", &field.replace("TAG", TAG))).status, status, "{field}");
        }
    }

    #[test]
    fn only_what_was_found_has_a_version() {
        for status in [302, 400, 403, 503] {
            let response = Response::new(status, "text/plain; charset=utf-8", "x").seal(&request("GET", "*"));
            assert_eq!((response.status, &response.body[..]), (status, &b"x"[..]));
            assert!(response.headers.iter().all(|(name, _)| *name != "ETag"));
        }
    }

    #[test]
    fn options() {
        let common = &COMMON[4..];
        let allow = ("Allow", "GET, HEAD, POST, OPTIONS");
        let shared = [
            allow,
            ("Access-Control-Allow-Origin", "*"),
            ("Access-Control-Allow-Methods", "GET, HEAD, POST, OPTIONS"),
            ("Access-Control-Allow-Headers", "*"),
            ("Access-Control-Max-Age", "86400"),
        ];
        for (readers, own) in [(Readers::Everybody, &shared[..]), (Readers::OwnSite, &[allow])] {
            let expected =
                Response { status: 204, headers: headers(&[own, common].concat()), body: Bytes::new(), version: None };
            assert_eq!(Response::preflight(readers).seal(&request("OPTIONS", "*")), expected);
        }
    }
}
