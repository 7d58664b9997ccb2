//! Where to listen, as an admin writes it: `unix:PATH[,mode=0660,group=www-data]` or `HOST:PORT`. Whether the place
//! can be had is found out by binding it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Owner and group of the socket file may connect.
pub const DEFAULT_MODE: u32 = 0o660;

/// The longest path that a Unix socket's address holds on Linux, without the final zero.
pub const MAX_PATH_BYTES: usize = 107;

/// A place to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `mode` are permission bits; `group` is a name from /etc/group or a number.
    Unix { path: PathBuf, mode: u32, group: Option<String> },
    /// `host` is a name or an address, an IPv6 address without its brackets.
    Tcp { host: String, port: u16 },
}

/// What is wrong with an address. Its text names what is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddressError {
    Form(String),
    NoPath,
    LongPath(String),
    Option(String),
    Mode(String),
    NoGroup,
    Port(String),
    Ipv6(String),
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Address, AddressError> {
        match text.strip_prefix("unix:") {
            Some(rest) => unix(rest),
            None => tcp(text),
        }
    }
}

/// The text that parses to this address.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Unix { path, mode, group } => {
                write!(f, "unix:{}", path.display())?;
                if *mode != DEFAULT_MODE {
                    write!(f, ",mode={mode:04o}")?;
                }
                group.iter().try_for_each(|group| write!(f, ",group={group}"))
            }
            Address::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Address::Tcp { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AddressError::Form(text) => write!(
                f,
                "'{text}' is no address; write unix:PATH, unix:PATH,mode=0660,group=www-data, 127.0.0.1:9000 or [::1]:9000"
            ),
            AddressError::NoPath => f.write_str("unix: needs a path, as in unix:/run/webpresence/webpresence.sock"),
            AddressError::LongPath(path) => {
                write!(f, "the path of a socket has at most {MAX_PATH_BYTES} bytes, '{path}' has {}", path.len())
            }
            AddressError::Option(text) => {
                write!(f, "'{text}' is no option of a socket; allowed are mode=0660 and group=www-data, each once")
            }
            AddressError::Mode(text) => write!(f, "mode={text} is no file mode; write octal digits from 0 to 0777"),
            AddressError::NoGroup => f.write_str("group= needs a name or a number, as in group=www-data"),
            AddressError::Port(text) => write!(f, "'{text}' is no port; write a number from 0 to 65535"),
            AddressError::Ipv6(text) => write!(f, "'{text}' is no IPv6 address in brackets, as in [::1]:9000"),
        }
    }
}

impl std::error::Error for AddressError {}

fn unix(text: &str) -> Result<Address, AddressError> {
    let mut parts = text.split(',');
    let path = parts.next().filter(|path| !path.is_empty()).ok_or(AddressError::NoPath)?;
    if path.len() > MAX_PATH_BYTES {
        return Err(AddressError::LongPath(path.to_owned()));
    }
    let (mut mode, mut group) = (None, None);
    for part in parts {
        match part.split_once('=') {
            Some(("mode", value)) if mode.is_none() => mode = Some(parse_mode(value)?),
            Some(("group", "")) => return Err(AddressError::NoGroup),
            Some(("group", value)) if group.is_none() => group = Some(value.to_owned()),
            _ => return Err(AddressError::Option(part.to_owned())),
        }
    }
    Ok(Address::Unix { path: path.into(), mode: mode.unwrap_or(DEFAULT_MODE), group })
}

fn parse_mode(text: &str) -> Result<u32, AddressError> {
    let octal = !text.is_empty() && text.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
    let mode = octal.then(|| u32::from_str_radix(text, 8).ok()).flatten();
    mode.filter(|mode| *mode <= 0o777).ok_or_else(|| AddressError::Mode(text.to_owned()))
}

fn tcp(text: &str) -> Result<Address, AddressError> {
    let (host, port) = text.rsplit_once(':').ok_or_else(|| AddressError::Form(text.to_owned()))?;
    let host = match host.strip_prefix('[') {
        Some(rest) => ipv6(rest).ok_or_else(|| AddressError::Ipv6(host.to_owned()))?,
        None if host.contains(':') => return Err(AddressError::Ipv6(host.to_owned())),
        None if host.is_empty() || host.contains(['/', ' ']) => return Err(AddressError::Form(text.to_owned())),
        None => host.to_owned(),
    };
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let port = digits.then(|| port.parse().ok()).flatten().ok_or_else(|| AddressError::Port(port.to_owned()))?;
    Ok(Address::Tcp { host, port })
}

fn ipv6(rest: &str) -> Option<String> {
    let host = rest.strip_suffix(']')?;
    // A zone (`fe80::1%eth0`) is the resolver's to understand.
    let address = host.split('%').next()?;
    address.parse::<std::net::Ipv6Addr>().is_ok().then(|| host.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written_the_same() {
        let unix = |path: &str, mode, group: Option<&str>| Address::Unix {
            path: path.into(),
            mode,
            group: group.map(str::to_owned),
        };
        let tcp = |host: &str, port| Address::Tcp { host: host.to_owned(), port };
        let table = [
            ("unix:/run/a.sock", unix("/run/a.sock", 0o660, None)),
            ("unix:relative", unix("relative", 0o660, None)),
            ("unix:/run/a.sock,mode=0600", unix("/run/a.sock", 0o600, None)),
            ("unix:/run/a.sock,mode=0777,group=www-data", unix("/run/a.sock", 0o777, Some("www-data"))),
            ("unix:/run/a.sock,group=33", unix("/run/a.sock", 0o660, Some("33"))),
            ("127.0.0.1:9000", tcp("127.0.0.1", 9000)),
            ("localhost:0", tcp("localhost", 0)),
            ("[::1]:65535", tcp("::1", 65535)),
            ("[fe80::1%eth0]:9000", tcp("fe80::1%eth0", 9000)),
        ];
        for (text, address) in table {
            assert_eq!(text.parse(), Ok(address.clone()), "{text}");
            assert_eq!(address.to_string(), text);
        }
        assert_eq!("unix:a,group=g,mode=7".parse(), Ok(unix("a", 0o007, Some("g"))));
    }

    #[test]
    fn what_is_wrong_is_named_with_what_is_allowed() {
        let form = "is no address; write unix:PATH, unix:PATH,mode=0660,group=www-data, 127.0.0.1:9000 or [::1]:9000";
        let mode = "is no file mode; write octal digits from 0 to 0777";
        let option = "is no option of a socket; allowed are mode=0660 and group=www-data, each once";
        let port = "is no port; write a number from 0 to 65535";
        let ipv6 = "is no IPv6 address in brackets, as in [::1]:9000";
        let path = "unix: needs a path, as in unix:/run/webpresence/webpresence.sock";
        let table = [
            ("", format!("'' {form}")),
            ("9000", format!("'9000' {form}")),
            (":9000", format!("':9000' {form}")),
            ("/run/a.sock", format!("'/run/a.sock' {form}")),
            ("/run/a.sock:1", format!("'/run/a.sock:1' {form}")),
            ("unix:", path.to_owned()),
            ("unix:,mode=0660", path.to_owned()),
            ("unix:a,", format!("'' {option}")),
            ("unix:a,owner=root", format!("'owner=root' {option}")),
            ("unix:a,mode=0660,mode=0600", format!("'mode=0600' {option}")),
            ("unix:a,group=a,group=b", format!("'group=b' {option}")),
            ("unix:a,group=", "group= needs a name or a number, as in group=www-data".to_owned()),
            ("unix:a,mode=", format!("mode= {mode}")),
            ("unix:a,mode=0668", format!("mode=0668 {mode}")),
            ("unix:a,mode=01000", format!("mode=01000 {mode}")),
            ("unix:a,mode=+660", format!("mode=+660 {mode}")),
            ("unix:a,mode=rw", format!("mode=rw {mode}")),
            ("localhost:", format!("'' {port}")),
            ("localhost:http", format!("'http' {port}")),
            ("localhost:65536", format!("'65536' {port}")),
            ("localhost:+80", format!("'+80' {port}")),
            ("::1:9000", format!("'::1' {ipv6}")),
            ("[::1:9000", format!("'[::1' {ipv6}")),
            ("[localhost]:9000", format!("'[localhost]' {ipv6}")),
        ];
        for (text, expected) in table {
            assert_eq!(text.parse::<Address>().unwrap_err().to_string(), expected, "{text}");
        }
    }

    #[test]
    fn path_limit_counts_on_both_sides() {
        let longest = "p".repeat(MAX_PATH_BYTES);
        assert!(format!("unix:{longest}").parse::<Address>().is_ok());
        let longer = format!("{longest}p");
        assert_eq!(format!("unix:{longer}").parse::<Address>(), Err(AddressError::LongPath(longer)));
    }
}
