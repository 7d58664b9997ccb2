//! Why a request is not answered: which parameter broke which rule, as data. The one line a visitor reads about it
//! is made here and holds nothing he sent.

use std::fmt;

use super::request::Form;

/// A request that is refused before anything is looked up.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    pub fault: Fault,
    /// The form the refusal itself takes: what was asked for as far as it could be read.
    pub form: Form,
}

/// A parameter (or the part of the request that stands for one) and the rule it broke.
#[derive(Debug, PartialEq, Eq)]
pub struct Fault {
    pub parameter: &'static str,
    pub rule: Rule,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Rule {
    Required,
    /// Several where one is answered.
    OneAddress,
    BareJid,
    Utf8,
    NoControls,
    /// An HTTP method that is not answered.
    Method,
    OneOf(&'static [&'static str]),
    /// A whole number in these bounds, both included.
    Range(u16, u16),
    AtMostBytes(usize),
    /// An http or https URL, or a path of the same site.
    Url,
    /// A host that `redirect_hosts` does not list.
    Host,
    Languages,
}

impl Fault {
    pub fn new(parameter: &'static str, rule: Rule) -> Fault {
        Fault { parameter, rule }
    }

    /// The HTTP status it deserves.
    pub fn status(&self) -> u16 {
        match self.rule {
            Rule::Method => 405,
            _ => 400,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.parameter)?;
        match &self.rule {
            Rule::Required => f.write_str("required"),
            Rule::OneAddress => f.write_str("one address at a time"),
            Rule::BareJid => f.write_str("must be a bare JID, like user@example.com or example.com"),
            Rule::Utf8 => f.write_str("must be UTF-8"),
            Rule::NoControls => f.write_str("must not hold control characters"),
            Rule::Method => f.write_str("must be GET, HEAD, POST or OPTIONS"),
            Rule::OneOf(names) => write!(f, "must be one of {}", names.join(", ")),
            Rule::Range(from, to) => write!(f, "must be a whole number from {from} to {to}"),
            Rule::AtMostBytes(limit) => write!(f, "must be at most {limit} bytes"),
            Rule::Url => f.write_str(
                "must be an http or https URL or a path of this site, without backslash, user name and password",
            ),
            Rule::Host => f.write_str("must lead to a host that this site allows"),
            Rule::Languages => f.write_str("must be language tags separated by commas, like de-AT,en"),
        }
    }
}
