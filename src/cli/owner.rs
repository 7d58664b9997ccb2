//! Commands that root runs act as the owner of the directory that the processes of the web server share: there they meet
//! the session that is already open, and leave nothing behind that only root may read. The configuration and its
//! passwords are read before, and the thread that changes is the only one yet.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;

use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::Failed;
use crate::config::Config;

/// A user, as passwd(5) and group(5) describe him.
#[derive(Debug, PartialEq)]
pub struct Owner {
    pub uid: u32,
    gid: u32,
    groups: Vec<u32>,
}

/// Becomes the owner of the shared directory, where this is root and the directory another user's.
///
/// # Errors
/// Whom we cannot become. Root's own files in his directory would lock him out.
pub fn act_as_owner(config: &Config) -> Result<Option<Owner>, Failed> {
    let Some(directory) = config.cache.directory.as_ref().filter(|_| rustix::process::geteuid().is_root()) else {
        return Ok(None);
    };
    // A directory that is not there yet, or is none, is told by whoever opens it.
    let found = fs::symlink_metadata(directory).ok().filter(|metadata| metadata.is_dir() && metadata.uid() != 0);
    let Some(metadata) = found else { return Ok(None) };
    let text =
        |path: &str| fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let owner = owner(metadata.uid(), metadata.gid(), &text("/etc/passwd"), &text("/etc/group"));
    become_owner(&owner).map_err(|error| {
        let (uid, directory) = (owner.uid, directory.display());
        Failed::Because(format!(
            "cannot act as user {uid}, who owns {directory}: {error}; run this command as that user"
        ))
    })?;
    Ok(Some(owner))
}

/// His groups; of a user whom no file knows, that of his directory alone.
fn owner(uid: u32, directory_gid: u32, passwd: &str, group: &str) -> Owner {
    let number = uid.to_string();
    let mut users = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let user = users.find(|fields| fields.len() == 7 && fields[2] == number);
    let gid = user.as_ref().and_then(|fields| fields[3].parse().ok()).unwrap_or(directory_gid);
    let name = user.map(|fields| fields[0]).unwrap_or_default();
    let member = |line: &str| {
        let fields: Vec<_> = line.split(':').collect();
        let of = fields.get(3).is_some_and(|members| members.split(',').any(|member| member == name));
        fields.get(2).filter(|_| of && !name.is_empty()).and_then(|gid| gid.parse().ok())
    };
    let others = group.lines().filter_map(member).filter(|other| *other != gid);
    Owner { uid, gid, groups: [gid].into_iter().chain(others).collect() }
}

fn become_owner(owner: &Owner) -> io::Result<()> {
    let groups: Vec<Gid> = owner.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
    set_thread_groups(&groups)?;
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_the_groups_that_the_files_name() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\nwww-data:x:33:34:www:/var/www:/sbin/nologin\nbroken:x:77\n";
        let group =
            "root:x:0:\nwww-data:x:34:\nssl-cert:x:110:prosody,www-data\nwww:x:111:www-data2\nodd:x:x:www-data\n";
        let expected = |uid, gid, groups: &[u32]| Owner { uid, gid, groups: groups.to_vec() };
        assert_eq!(owner(33, 50, passwd, group), expected(33, 34, &[34, 110]));
        assert_eq!(owner(77, 50, passwd, group), expected(77, 50, &[50]));
        assert_eq!(owner(4000, 50, "", ""), expected(4000, 50, &[50]));
    }
}
