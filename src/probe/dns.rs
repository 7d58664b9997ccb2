//! Where an account's server is, by DNS SRV (RFC 2782; RFC 6120, 3.2). Addresses of hosts are the system's business.

use domain::base::Name;
use domain::resolv::stub::StubResolver;
use domain::resolv::stub::conf::ResolvConf;

/// A host and its port, in the order to try them.
pub type Target = (String, u16);

/// The targets for `service` (`_xmpp-client._tcp`) of `domain`. Without SRV records, and when DNS does not answer, it is
/// the domain itself with `port`; `None` when the domain says that there is no such service (a target of `.`).
pub async fn targets(conf: ResolvConf, service: &str, domain: &str, port: u16) -> Option<Vec<Target>> {
    let itself = || Some(vec![(domain.to_owned(), port)]);
    let (Ok(service), Ok(name)) =
        (service.parse::<domain::base::name::RelativeName<Vec<u8>>>(), domain.parse::<Name<Vec<u8>>>())
    else {
        return itself();
    };
    match StubResolver::from_conf(conf).lookup_srv(service, name, port).await {
        Ok(Some(found)) => {
            Some(found.into_srvs().map(|srv| (srv.target().to_string(), srv.port())).collect::<Vec<_>>())
        }
        Ok(None) => None,
        Err(error) => {
            log::debug!("SRV of {domain}: {error}");
            itself()
        }
    }
}
