//! `webpresence get QUERY`: what a web server would get for a request, headers and all.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use tokio::time::Instant;

use super::{Failed, run_on, runtime, shared_directory};
use crate::config::Config;
use crate::gateway::cgi;
use crate::site::{Life, Site};
use crate::web::request::Request;

pub fn get(config: Config, query: OsString) -> Result<(), Failed> {
    let icons = super::serve::icons(&config)?;
    let directory = shared_directory(&config, log::Level::Warn);
    run_on(runtime()?, async {
        let vars = [("REQUEST_METHOD", b"GET".to_vec()), ("QUERY_STRING", query.into_vec())];
        let request = Request { vars: vars.into(), body: Vec::new(), excess: None, arrived: Instant::now() };
        let (site, sessions) = Site::open(config, icons, directory, Life::Single);
        let response = site.answer(&request).await;
        let written = cgi::write_response(&response);
        site.close();
        sessions.closed().await;
        Ok(written?)
    })
}
