//! What the gateway hands in, and what it asks for: a `Request` becomes a `Query`, or the `Refusal` that names the
//! parameter and the rule. Nothing is looked up here, and nothing behind here sees an unchecked parameter.

use jid::BareJid;
use tokio::time::Instant;

use super::languages;
use super::params::Params;
use super::redirect::Redirects;
use super::refusal::{Fault, Refusal, Rule};
use super::signed::{self, Target, Token};
use super::vars::Vars;
use crate::render::picture::Format;
use crate::signature::{Keyring, Proof};

/// The most a query string may have.
pub const QUERY_MAX_BYTES: usize = 8 * 1024;

/// The most a request body may have; the gateway enforces it.
pub const BODY_MAX_BYTES: usize = 16 * 1024;

/// The most all CGI variables together may have; the gateway enforces it.
pub const PARAMS_MAX_BYTES: usize = 64 * 1024;

const SIZE_MIN_PX: u16 = 8;
const SIZE_MAX_PX: u16 = 512;
const SIZE_DEFAULT_PX: u16 = 16;
const SCALE_MAX: u16 = 2;

/// One request as the web server described it, whichever door it came through.
#[derive(Debug)]
pub struct Request {
    pub vars: Vars,
    pub body: Vec<u8>,
    /// The gateway's limit this request broke, if any; what was over the limit is not here.
    pub excess: Option<Excess>,
    /// When it came in: its deadline counts from here.
    pub arrived: Instant,
}

/// A limit of the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Excess {
    /// More than 64 KiB of CGI variables.
    Params,
    /// More than 16 KiB of request body.
    Body,
}

/// The methods that are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Get,
    Head,
    Post,
    Options,
}

/// What `Allow` says.
pub const METHODS: &str = "GET, HEAD, POST, OPTIONS";

impl Request {
    /// A variable that is there and not empty.
    pub fn var(&self, name: &str) -> Option<&[u8]> {
        self.vars.get(name).filter(|value| !value.is_empty())
    }

    /// `None` is a method that is not answered.
    pub fn method(&self) -> Option<Method> {
        match self.var("REQUEST_METHOD")? {
            b"GET" => Some(Method::Get),
            b"HEAD" => Some(Method::Head),
            b"POST" => Some(Method::Post),
            b"OPTIONS" => Some(Method::Options),
            _ => None,
        }
    }

    /// True where the web server told of a login, its own or one the browser tried.
    pub fn has_login(&self) -> bool {
        ["REMOTE_USER", "HTTP_AUTHORIZATION", "AUTH_TYPE"].into_iter().any(|name| self.var(name).is_some())
    }

    /// How long the body is said to be (RFC 3875, 4.2); nothing where that is no number.
    pub fn content_length(&self) -> Option<u64> {
        str::from_utf8(self.var("CONTENT_LENGTH")?).ok()?.trim().parse().ok()
    }

    /// The body where it is a form's.
    fn form_body(&self) -> &[u8] {
        let content_type = self.var("CONTENT_TYPE").unwrap_or_default();
        let essence = content_type.split(|byte| *byte == b';').next().unwrap_or_default();
        let is_form = essence.trim_ascii().eq_ignore_ascii_case(b"application/x-www-form-urlencoded");
        if is_form && self.method() == Some(Method::Post) { &self.body } else { &[] }
    }
}

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
pub struct Query {
    pub target: Target,
    /// Who claims to ask.
    pub req_jid: Option<BareJid>,
    pub form: Form,
    pub redirects: Redirects,
    /// The tags of `lang`; `None` where it was not given.
    pub langs: Option<Vec<String>>,
    /// What a signed link or a token proves.
    proof: Option<Proof>,
}

/// What a signature that holds proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proven<'a> {
    pub requester: &'a BareJid,
    /// Until when, in seconds since 1970.
    pub exp_s: u64,
}

impl Query {
    /// Reads the parameters of the query string and of a form's body; the query string wins. `redirect_hosts` are the
    /// hosts a redirect may lead to; none: any. `keyring` checks signatures.
    pub fn parse(request: &Request, redirect_hosts: &[String], keyring: &Keyring) -> Result<Query, Refusal> {
        let query = request.var("QUERY_STRING").unwrap_or_default();
        // What is over the limit is refused below, but in the form that was asked for.
        let mut params = Params::read(&[&query[..query.len().min(QUERY_MAX_BYTES)], request.form_body()]);
        let token = Token::open(&mut params, keyring);
        let form = Form::parse(&params);
        let readable = form.as_ref().map_or_else(|_| Form::of_refusal(&params), |form| *form);
        let limited = within_limits(request).and(form);
        let checked = limited.and_then(|form| Query::check(&params, form, token, redirect_hosts, keyring));
        checked.map_err(|fault| Refusal { fault, form: readable })
    }

    fn check(
        params: &Params,
        form: Form,
        token: Token,
        redirect_hosts: &[String],
        keyring: &Keyring,
    ) -> Result<Query, Fault> {
        let target = match token {
            Token::Absent => Target::Named(target(params)?),
            Token::Opened(_) => Target::Hidden(target(params)?),
            Token::Sealed => Target::Nobody,
        };
        let req_jid = params.text("req_jid")?.and_then(bare);
        let redirects = Redirects::parse(params, redirect_hosts)?;
        let langs = languages::asked(params)?;
        let proof = match (token, &target, &req_jid) {
            (Token::Opened(proof), ..) => Some(proof),
            (Token::Absent, Target::Named(jid), Some(req_jid)) => {
                signed::proof(params, jid, req_jid, form.kind.name(), keyring)
            }
            _ => None,
        };
        Ok(Query { target, req_jid, form, redirects, langs, proof })
    }

    /// Who asks, where a link or a token says so that was signed for the identity `site` and holds now.
    pub fn proven(&self, site: &BareJid) -> Option<Proven<'_>> {
        let proof = self.proof.as_ref().filter(|proof| proof.site == *site)?;
        Some(Proven { requester: self.req_jid.as_ref()?, exp_s: proof.exp_s })
    }
}

fn within_limits(request: &Request) -> Result<(), Fault> {
    // Too many variables come without any: not even the method is known then.
    let broken = if request.excess == Some(Excess::Params) {
        ("request header", Rule::AtMostBytes(PARAMS_MAX_BYTES))
    } else if request.method().is_none() {
        ("method", Rule::Method)
    } else if request.excess == Some(Excess::Body) {
        ("request body", Rule::AtMostBytes(BODY_MAX_BYTES))
    } else if request.var("QUERY_STRING").is_some_and(|query| query.len() > QUERY_MAX_BYTES) {
        ("query string", Rule::AtMostBytes(QUERY_MAX_BYTES))
    } else {
        return Ok(());
    };
    Err(Fault::new(broken.0, broken.1))
}

/// The one address asked about.
fn target(params: &Params) -> Result<BareJid, Fault> {
    let refused = |rule| Fault::new("jid", rule);
    let text = params.text("jid")?.filter(|text| !text.is_empty()).ok_or_else(|| refused(Rule::Required))?;
    if params.is_repeated("jid") || text.contains(',') {
        return Err(refused(Rule::OneAddress));
    }
    bare(text).ok_or_else(|| refused(Rule::BareJid))
}

/// A bare JID in its normal form. The dot of a fully qualified domain is no part of it (RFC 7622, 3.2); the parser
/// leaves it where nothing else is to be normalised.
fn bare(text: &str) -> Option<BareJid> {
    let jid = BareJid::new(text.strip_suffix('.').unwrap_or(text)).ok()?;
    is_host(jid.domain().as_str()).then_some(jid)
}

/// The parser takes any sign for a part of a domain that means nothing to itself: `example.com;type=text`, `*`, `"`.
/// Underscores are no host's (RFC 952), but there are such servers.
fn is_host(domain: &str) -> bool {
    let plain = |c: char| !c.is_ascii() || c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    domain.starts_with('[') || domain.split('.').all(|label| !label.is_empty() && label.chars().all(plain))
}

/// The form an answer takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    pub kind: Kind,
    /// Of a picture.
    pub format: Format,
    /// Of a picture: the length of its sides, `scale` included.
    pub size_px: u16,
}

impl Form {
    fn parse(params: &Params) -> Result<Form, Fault> {
        let kind = Kind::parse(params)?;
        // Pixels make no drawing.
        let formats = if kind == Kind::Avatar { Format::NAMES.len() - 1 } else { Format::NAMES.len() };
        let format = choice(params, "format", &Format::NAMES[..formats], &Format::ALL)?.unwrap_or(Format::Png);
        let size = number(params, "size", SIZE_MIN_PX, SIZE_MAX_PX)?.unwrap_or(SIZE_DEFAULT_PX);
        let scale = number(params, "scale", 1, SCALE_MAX)?.unwrap_or(1);
        Ok(Form { kind, format, size_px: size * scale })
    }

    /// For a refusal because of the form itself: the kind where that was readable, else a line of text.
    fn of_refusal(params: &Params) -> Form {
        let kind = Kind::parse(params).unwrap_or(Kind::Text);
        Form { kind, format: Format::Png, size_px: SIZE_DEFAULT_PX }
    }
}

/// What comes back (`type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Image,
    Text,
    Xml,
    Json,
    Avatar,
}

impl Kind {
    pub const ALL: [Kind; 5] = [Kind::Image, Kind::Text, Kind::Xml, Kind::Json, Kind::Avatar];
    /// As `type` has them, in the order of `ALL`.
    pub const NAMES: [&str; 5] = ["image", "text", "xml", "json", "avatar"];

    pub fn name(self) -> &'static str {
        let place = Kind::ALL.iter().position(|kind| *kind == self).expect("ALL has all of them");
        Kind::NAMES[place]
    }

    fn parse(params: &Params) -> Result<Kind, Fault> {
        Ok(choice(params, "type", &Kind::NAMES, &Kind::ALL)?.unwrap_or(Kind::Image))
    }
}

/// One of `names`, exactly, as the value that stands at the same place in `values`.
fn choice<T: Copy>(
    params: &Params,
    parameter: &'static str,
    names: &'static [&'static str],
    values: &[T],
) -> Result<Option<T>, Fault> {
    let Some(text) = params.text(parameter)? else { return Ok(None) };
    let found = names.iter().zip(values).find(|(name, _)| **name == text);
    found.map(|(_, value)| Some(*value)).ok_or_else(|| Fault::new(parameter, Rule::OneOf(names)))
}

/// A whole number in decimal digits, both bounds included.
fn number(params: &Params, parameter: &'static str, from: u16, to: u16) -> Result<Option<u16>, Fault> {
    let Some(text) = params.text(parameter)? else { return Ok(None) };
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let value = text.parse().ok().filter(|value| digits && (from..=to).contains(value));
    value.map(Some).ok_or_else(|| Fault::new(parameter, Rule::Range(from, to)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORM: &str = "application/x-www-form-urlencoded";

    fn request(method: &str, query: &str, content_type: &str, body: &str) -> Request {
        let vars = [("REQUEST_METHOD", method), ("QUERY_STRING", query), ("CONTENT_TYPE", content_type)];
        Request { vars: vars.into(), body: body.as_bytes().to_vec(), excess: None, arrived: Instant::now() }
    }

    fn parsed(request: &Request) -> Result<Query, Refusal> {
        Query::parse(request, &[], &Keyring::default())
    }

    fn get(query: &str) -> Result<Query, Refusal> {
        parsed(&request("GET", query, "", ""))
    }

    /// What the plainest request for `jid` comes to.
    fn plain(jid: &str) -> Query {
        Query {
            target: Target::Named(BareJid::new(jid).expect("the rows hold addresses")),
            req_jid: None,
            form: Form { kind: Kind::Image, format: Format::Png, size_px: 16 },
            redirects: Redirects::default(),
            langs: None,
            proof: None,
        }
    }

    #[test]
    fn addresses_are_normalised() {
        for (query, jid) in [
            ("jid=a@example.com", "a@example.com"),
            ("jid=A%40EXAMPLE.com", "a@example.com"),
            ("jid=conference.example.com", "conference.example.com"),
            ("jid=a@example.com.", "a@example.com"),
            ("jid=a@chat_1.example.com", "a@chat_1.example.com"),
            ("jid=a@192.0.2.1", "a@192.0.2.1"),
            ("jid=a%2Bb@example.com", "a+b@example.com"),
            ("jid=a@[::1]", "a@[::1]"),
            ("jid=%C3%84@m%C3%BCnchen.example", "ä@münchen.example"),
            ("x=%FF%00&jid=a@example.com&_=1700000000", "a@example.com"),
        ] {
            assert_eq!(get(query), Ok(plain(jid)), "{query}");
        }
    }

    #[test]
    fn addresses_that_are_none_are_refused() {
        for (query, rule) in [
            ("", Rule::Required),
            ("jid=", Rule::Required),
            ("jid", Rule::Required),
            ("JID=a@example.com", Rule::Required),
            ("jid=a@example.com/home", Rule::BareJid),
            ("jid=example.com/home", Rule::BareJid),
            ("jid=a@example.com/", Rule::BareJid),
            ("jid=@example.com", Rule::BareJid),
            ("jid=a@", Rule::BareJid),
            ("jid=a@b@example.com", Rule::BareJid),
            ("jid=a+b@example.com", Rule::BareJid),
            ("jid=a@exa mple.com", Rule::BareJid),
            ("jid=.", Rule::BareJid),
            ("jid=a@example..com", Rule::BareJid),
            ("jid=%22a%22@example.com", Rule::BareJid),
            ("jid=a@example.com..", Rule::BareJid),
            ("jid=a@example.com;type=text", Rule::BareJid),
            ("jid=a@*.example.com", Rule::BareJid),
            ("jid=a@exa%22mple.com", Rule::BareJid),
            ("jid=a@example.com%26", Rule::BareJid),
            ("jid=*", Rule::BareJid),
            ("jid=a@example.com%0A", Rule::NoControls),
            ("jid=a%00@example.com", Rule::NoControls),
            ("jid=%E4@example.com", Rule::Utf8),
            ("jid=a@example.com,b@example.com", Rule::OneAddress),
            ("jid=a@example.com&jid=b@example.com", Rule::OneAddress),
            ("jid=a@example.com&jid=a@example.com", Rule::OneAddress),
        ] {
            let refusal = Refusal { fault: Fault::new("jid", rule), form: plain("x").form };
            assert_eq!(get(query), Err(refusal), "{query}");
        }
    }

    #[test]
    fn an_address_has_a_limit() {
        let jid = |bytes: usize| format!("jid={}@example.com", "a".repeat(bytes));
        assert!(get(&jid(1023)).is_ok());
        assert_eq!(get(&jid(1024)).map_err(|refusal| refusal.fault), Err(Fault::new("jid", Rule::BareJid)));
    }

    #[test]
    fn a_malformed_requester_counts_as_none() {
        for (value, expected) in [
            ("b@example.com", Some("b@example.com")),
            ("B@Example.com", Some("b@example.com")),
            ("example.com", Some("example.com")),
            ("", None),
            ("@example.com", None),
            ("b@example.com/home", None),
            ("a b", None),
        ] {
            let query = get(&format!("jid=a@example.com&req_jid={value}")).expect("it is not refused");
            assert_eq!(query.req_jid.as_ref().map(|jid| jid.as_str()), expected, "{value}");
        }
        let refused = get("jid=a@example.com&req_jid=%FF").map_err(|refusal| refusal.fault);
        assert_eq!(refused, Err(Fault::new("req_jid", Rule::Utf8)));
    }

    #[test]
    fn forms() {
        for (query, kind, format, size_px) in [
            ("", Kind::Image, Format::Png, 16),
            ("&type=image", Kind::Image, Format::Png, 16),
            ("&type=text", Kind::Text, Format::Png, 16),
            ("&type=xml", Kind::Xml, Format::Png, 16),
            ("&type=json", Kind::Json, Format::Png, 16),
            ("&format=gif&size=8", Kind::Image, Format::Gif, 8),
            ("&format=webp&size=512", Kind::Image, Format::WebP, 512),
            ("&format=svg&size=512&scale=2", Kind::Image, Format::Svg, 1024),
            ("&format=png&scale=1", Kind::Image, Format::Png, 16),
            ("&type=avatar&format=webp&size=64", Kind::Avatar, Format::WebP, 64),
            ("&size=016", Kind::Image, Format::Png, 16),
            ("&type=xml&type=json", Kind::Xml, Format::Png, 16),
        ] {
            let found = get(&format!("jid=a@example.com{query}")).map(|query| query.form);
            assert_eq!(found, Ok(Form { kind, format, size_px }), "{query}");
        }
    }

    #[test]
    fn forms_that_are_none_are_refused_in_the_form_that_was_readable() {
        let (size, scale) = (Rule::Range(8, 512), Rule::Range(1, 2));
        for (query, parameter, rule, kind) in [
            ("type=html", "type", Rule::OneOf(&Kind::NAMES), Kind::Text),
            ("type=", "type", Rule::OneOf(&Kind::NAMES), Kind::Text),
            ("type=XML", "type", Rule::OneOf(&Kind::NAMES), Kind::Text),
            ("type=xml+", "type", Rule::OneOf(&Kind::NAMES), Kind::Text),
            ("type=%FF", "type", Rule::Utf8, Kind::Text),
            ("format=jpeg", "format", Rule::OneOf(&Format::NAMES), Kind::Image),
            ("type=avatar&format=svg", "format", Rule::OneOf(&Format::NAMES[..3]), Kind::Avatar),
            ("format=PNG", "format", Rule::OneOf(&Format::NAMES), Kind::Image),
            ("type=json&size=7", "size", size, Kind::Json),
            ("type=text&size=513", "size", Rule::Range(8, 512), Kind::Text),
            ("size=", "size", Rule::Range(8, 512), Kind::Image),
            ("size=%2B16", "size", Rule::Range(8, 512), Kind::Image),
            ("size=-16", "size", Rule::Range(8, 512), Kind::Image),
            ("size=16px", "size", Rule::Range(8, 512), Kind::Image),
            ("size=99999999999999999999", "size", Rule::Range(8, 512), Kind::Image),
            ("type=xml&scale=0", "scale", scale, Kind::Xml),
            ("scale=3", "scale", Rule::Range(1, 2), Kind::Image),
            ("scale=1.5", "scale", Rule::Range(1, 2), Kind::Image),
        ] {
            let form = Form { kind, format: Format::Png, size_px: 16 };
            let refusal = Refusal { fault: Fault::new(parameter, rule), form };
            assert_eq!(get(&format!("jid=a@example.com&{query}")), Err(refusal), "{query}");
        }
    }

    #[test]
    fn a_refusal_of_something_else_has_the_whole_form() {
        let refusal = get("format=gif&size=32").expect_err("there is no jid");
        assert_eq!(refusal.form, Form { kind: Kind::Image, format: Format::Gif, size_px: 32 });
    }

    #[test]
    fn the_body_of_a_form_counts_after_the_query_string() {
        let jid = |method, query, content_type, body| {
            let found = parsed(&request(method, query, content_type, body));
            found
                .map(|query| query.target.shown().expect("it is named").to_string())
                .map_err(|refusal| refusal.fault.rule)
        };
        let in_body = "jid=body@example.com";
        assert_eq!(jid("POST", "", FORM, in_body), Ok("body@example.com".into()));
        assert_eq!(jid("POST", "", "Application/X-WWW-Form-URLencoded ; charset=UTF-8", in_body), {
            Ok("body@example.com".into())
        });
        assert_eq!(jid("POST", "jid=query@example.com", FORM, in_body), Ok("query@example.com".into()));
        assert_eq!(jid("POST", "jid=", FORM, in_body), Err(Rule::Required));
        assert_eq!(jid("POST", "", "text/plain", in_body), Err(Rule::Required));
        assert_eq!(jid("POST", "", "", in_body), Err(Rule::Required));
        assert_eq!(jid("GET", "", FORM, in_body), Err(Rule::Required));
        assert_eq!(jid("POST", "type=xml", FORM, "jid=a@example.com&jid=b@example.com"), Err(Rule::OneAddress));
    }

    #[test]
    fn methods() {
        for (method, answered) in [
            ("GET", true),
            ("HEAD", true),
            ("POST", true),
            ("PUT", false),
            ("DELETE", false),
            ("get", false),
            ("", false),
            ("GET ", false),
        ] {
            let found = parsed(&request(method, "jid=a@example.com&type=json", "", ""));
            let form = Form { kind: Kind::Json, ..plain("x").form };
            let refusal = Refusal { fault: Fault::new("method", Rule::Method), form };
            assert_eq!(found.map(|query| query.form), if answered { Ok(form) } else { Err(refusal) }, "{method}");
        }
    }

    #[test]
    fn limits() {
        let filled = |bytes: usize| format!("jid=a@example.com&type=json&x={}", "a".repeat(bytes - 30));
        let limited = |request: &Request| parsed(request).map(drop).map_err(|refusal| refusal.fault);
        let over = |part, limit| Err(Fault::new(part, Rule::AtMostBytes(limit)));

        assert_eq!(limited(&request("GET", &filled(QUERY_MAX_BYTES), "", "")), Ok(()));
        let long = request("GET", &filled(QUERY_MAX_BYTES + 1), "", "");
        assert_eq!(limited(&long), over("query string", QUERY_MAX_BYTES));
        let form = parsed(&long).expect_err("it is too long").form;
        assert_eq!(form.kind, Kind::Json);

        let mut post = request("POST", "", FORM, &filled(BODY_MAX_BYTES));
        assert_eq!(limited(&post), Ok(()));
        post.excess = Some(Excess::Body);
        assert_eq!(limited(&post), over("request body", BODY_MAX_BYTES));

        // As the gateway hands it in: without its variables.
        let crowded = Request { vars: Vars::default(), excess: Some(Excess::Params), ..request("", "", "", "") };
        assert_eq!(limited(&crowded), over("request header", PARAMS_MAX_BYTES));
    }
}
